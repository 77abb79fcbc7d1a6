/* SPDX-License-Identifier: MIT */
/* Allocation that cannot fail: without memory for our own bookkeeping there is no way to go on. */
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Nothing here may allocate. abort() lets the handler of SIGABRT restore the terminal. */
static _Noreturn void out_of_memory(void)
{
    static const char text[] = "ferry: out of memory\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written;
    abort();
}

static void *checked(void *p)
{
    if (!p)
        out_of_memory();
    return p;
}

/* The C library may answer a request for 0 bytes with NULL; ask for 1 instead. */
void *xmalloc(size_t size)
{
    return checked(malloc(size ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return checked(count && size ? calloc(count, size) : calloc(1, 1));
}

void *xrealloc(void *p, size_t size)
{
    return checked(realloc(p, size ? size : 1));
}

void *xreallocarray(void *p, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        out_of_memory();
    return xrealloc(p, total);
}

char *xstrdup(const char *s)
{
    return checked(strdup(s));
}

char *xstrndup(const char *s, size_t n)
{
    return checked(strndup(s, n));
}

void *xmemdup(const void *p, size_t size)
{
    void *copy = xmalloc(size);
    if (size)
        memcpy(copy, p, size);
    return copy;
}

char *xvasprintf(const char *fmt, va_list ap)
{
    char *s;
    if (vasprintf(&s, fmt, ap) < 0)
        out_of_memory();
    return s;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = xvasprintf(fmt, ap);
    va_end(ap);
    return s;
}

void *xaligned_alloc(size_t alignment, size_t size)
{
    void *p;
    /* posix_memalign() wants a multiple of a pointer's size. */
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    return posix_memalign(&p, alignment, size ? size : 1) == 0 ? p : checked(NULL);
}
