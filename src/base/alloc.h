/* SPDX-License-Identifier: MIT */
/*
 * Allocation of our own bookkeeping: running out of memory here ends the process with a message.
 * Sizes that a guest, an image or a peer chooses are bounded before they come here; guest RAM and
 * other large memory use mmap() and report an error.
 */
#ifndef FERRY_BASE_ALLOC_H
#define FERRY_BASE_ALLOC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *xrealloc(void *p, size_t size) __attribute__((returns_nonnull));
/* Grows an array; the product is checked. */
void *xreallocarray(void *p, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
void *xmemdup(const void *p, size_t size) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...)
    __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
char *xvasprintf(const char *fmt, va_list ap)
    __attribute__((malloc, returns_nonnull, format(printf, 1, 0)));
/* Memory aligned to a power of 2, to be freed by free(). */
void *xaligned_alloc(size_t alignment, size_t size) __attribute__((malloc, returns_nonnull));

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))

/* `autofree char *s = …` frees s when it goes out of scope. */
static inline void autofree_cleanup(void *p)
{
    free(*(void **)p);
}
#define autofree __attribute__((cleanup(autofree_cleanup)))

#endif
