/* SPDX-License-Identifier: MIT */
/*
 * What the sanitizers must be told about switching stacks; nothing in an ordinary build.
 * <sanitizer/common_interface_defs.h>, <sanitizer/tsan_interface.h>.
 *
 *   entering:  fiber_enter_begin(), switch, fiber_enter_end()      on the stack of who enters
 *   entered:   fiber_started()                                     at the bottom of a new coroutine
 *   yielding:  fiber_leave_begin(), switch, fiber_leave_end()      on the coroutine's stack
 *   ending:    fiber_leave_last(), switch
 */
#ifndef FERRY_AIO_FIBER_H
#define FERRY_AIO_FIBER_H

#include <stdbool.h>
#include <stddef.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define FIBER_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define FIBER_TSAN 0
#endif

/* Instrumented code wants more stack. */
#define FIBER_STACK_FACTOR (FIBER_ASAN || FIBER_TSAN ? 4 : 1)

struct fiber {
#if FIBER_ASAN
    const void *stack;
    size_t stack_size;
    const void *caller_stack;
    size_t caller_stack_size;
#endif
#if FIBER_TSAN
    void *self, *caller;
#endif
    char none; /* a struct has a member */
};

#define FIBER_TOP 4096

/* Everything here is inlined: between telling TSan of a switch and making it, no function may be
 * entered or left. */
#define FIBER_INLINE static inline __attribute__((always_inline))

/* A coroutine begins a new life on a stack that may have been used before. */
FIBER_INLINE void fiber_create(struct fiber *fiber, void *stack, size_t size)
{
#if FIBER_ASAN
    fiber->stack = stack;
    fiber->stack_size = size;
    /* The frames of the last life that never returned are the first ones, at the upper end. */
    __asan_unpoison_memory_region((char *)stack + size - FIBER_TOP, FIBER_TOP);
#endif
#if FIBER_TSAN
    fiber->self = __tsan_create_fiber(0);
#endif
    (void)fiber;
    (void)stack;
    (void)size;
}

FIBER_INLINE void fiber_destroy(struct fiber *fiber)
{
#if FIBER_TSAN
    __tsan_destroy_fiber(fiber->self);
#endif
    (void)fiber;
}

FIBER_INLINE void fiber_enter_begin(struct fiber *fiber, void **fake_stack)
{
#if FIBER_TSAN
    fiber->caller = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber->self, 0);
#endif
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(fake_stack, fiber->stack, fiber->stack_size);
#endif
    (void)fiber;
    (void)fake_stack;
}

FIBER_INLINE void fiber_enter_end(void **fake_stack)
{
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(*fake_stack, NULL, NULL);
#endif
    (void)fake_stack;
}

FIBER_INLINE void fiber_started(struct fiber *fiber)
{
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(NULL, &fiber->caller_stack, &fiber->caller_stack_size);
#endif
    (void)fiber;
}

FIBER_INLINE void fiber_leave_begin(struct fiber *fiber, void **fake_stack)
{
#if FIBER_TSAN
    __tsan_switch_to_fiber(fiber->caller, 0);
#endif
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(fake_stack, fiber->caller_stack, fiber->caller_stack_size);
#endif
    (void)fiber;
    (void)fake_stack;
}

FIBER_INLINE void fiber_leave_end(struct fiber *fiber, void **fake_stack)
{
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(*fake_stack, &fiber->caller_stack, &fiber->caller_stack_size);
#endif
    (void)fiber;
    (void)fake_stack;
}

FIBER_INLINE void fiber_leave_last(struct fiber *fiber)
{
#if FIBER_TSAN
    __tsan_switch_to_fiber(fiber->caller, 0);
#endif
#if FIBER_ASAN
    /* NULL: the coroutine's fake stack goes. */
    __sanitizer_start_switch_fiber(NULL, fiber->caller_stack, fiber->caller_stack_size);
#endif
    (void)fiber;
}

#endif
