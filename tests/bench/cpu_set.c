/* SPDX-License-Identifier: MIT */
/*
 * A small set of CPU benchmarks that runs as a guest's program and natively (./dev bench cpu).
 * Each line of output: "bench NAME seconds check". check is the same everywhere, or something
 * computed wrong.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252u;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* 400 million instructions: 4 in the loop, no memory. */
static uint64_t bench_loop(void)
{
    uint64_t n = 100000000, sum = 0;

    __asm__ volatile("1: add %1, %0\n\txor $0x55, %0\n\tdec %1\n\tjnz 1b"
                     : "+r"(sum), "+r"(n)
                     :
                     : "cc");
    return sum;
}

static uint64_t bench_sieve(void)
{
    enum { LIMIT = 2000000 };
    uint8_t *composite = calloc(LIMIT, 1);
    uint64_t count = 0;

    for (unsigned i = 2; i < LIMIT; i++) {
        if (!composite[i]) {
            count++;
            for (uint64_t k = (uint64_t)i * i; k < LIMIT; k += i) {
                composite[k] = 1;
            }
        }
    }
    free(composite);
    return count;
}

static uint64_t bench_crc(void)
{
    enum { SIZE = 1 << 16, ROUNDS = 64 };
    uint32_t table[256], crc = UINT32_MAX;
    uint8_t *data = malloc(SIZE);

    for (unsigned i = 0; i < 256; i++) {
        table[i] = i;
        for (unsigned k = 0; k < 8; k++) {
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
        }
    }
    for (unsigned i = 0; i < SIZE; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < SIZE; i++) {
            crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
        }
    }
    free(data);
    return crc;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t bench_sort(void)
{
    enum { COUNT = 200000 };
    uint64_t *values = malloc(COUNT * sizeof(*values)), check = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = random64();
    }
    qsort(values, COUNT, sizeof(*values), compare);
    for (unsigned i = 0; i < COUNT; i += 1000) {
        check = check * 31 + values[i];
    }
    free(values);
    return check;
}

static uint64_t bench_float(void)
{
    enum { N = 120 };
    static double a[N][N], b[N][N], c[N][N];
    double trace = 0;

    for (unsigned i = 0; i < N; i++) {
        for (unsigned k = 0; k < N; k++) {
            a[i][k] = 1.0 / (i + k + 1);
            b[i][k] = i == k ? 2.0 : 0.5 / (i + 2 * k + 1);
        }
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < N; i++) {
            for (unsigned k = 0; k < N; k++) {
                double sum = 0;
                for (unsigned m = 0; m < N; m++) {
                    sum += a[i][m] * b[m][k];
                }
                c[i][k] = sum;
            }
        }
    }
    for (unsigned i = 0; i < N; i++) {
        trace += c[i][i];
    }
    return (uint64_t)(trace * 1e12);
}

static uint64_t bench_pagefault(void)
{
    enum { PAGES = 4096, ROUNDS = 4 };
    uint64_t sum = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t *p =
            mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(p, PAGES * 4096, MADV_NOHUGEPAGE);
        for (unsigned i = 0; i < PAGES; i++) {
            p[i * 4096] = (uint8_t)i;
            sum += p[i * 4096];
        }
        munmap(p, PAGES * 4096);
    }
    return sum;
}

static uint64_t bench_random(void)
{
    enum { COUNT = 1 << 21, STEPS = 2000000 }; /* 16 MiB */
    uint64_t *p = malloc(COUNT * sizeof(*p)), at = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        p[i] = random64();
    }
    for (unsigned i = 0; i < STEPS; i++) {
        at = (p[at % COUNT] + i);
    }
    free(p);
    return at;
}

static uint64_t bench_memcpy(void)
{
    enum { SIZE = 1 << 20, ROUNDS = 200 };
    uint8_t *a = malloc(SIZE), *b = malloc(SIZE);

    memset(a, 3, SIZE);
    for (unsigned i = 0; i < ROUNDS; i++) {
        a[i] = (uint8_t)i;
        memcpy(b, a, SIZE);
        __asm__ volatile("" : : "r"(b) : "memory");
    }
    uint64_t check = b[ROUNDS - 1];
    free(a);
    free(b);
    return check;
}

static uint64_t bench_syscall(void)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < 200000; i++) {
        count += syscall(SYS_getppid) >= 0;
    }
    return count;
}

static uint64_t bench_fork(void)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < 200; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            _exit(7);
        }
        waitpid(pid, &status, 0);
        count += WEXITSTATUS(status) == 7;
    }
    return count;
}

static uint64_t bench_pipe(void)
{
    enum { ROUNDS = 10000 };
    int there[2], back[2];
    uint64_t count = 0;
    char c = 1;

    if (pipe(there) || pipe(back)) {
        return 0;
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned i = 0; i < ROUNDS; i++) {
            if (read(there[0], &c, 1) != 1 || write(back[1], &c, 1) != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        count += write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1;
    }
    waitpid(pid, NULL, 0);
    return count;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} set[] = {
    {"loop", bench_loop},     {"sieve", bench_sieve},   {"crc", bench_crc},
    {"sort", bench_sort},     {"float", bench_float},   {"pagefault", bench_pagefault},
    {"random", bench_random}, {"memcpy", bench_memcpy}, {"syscall", bench_syscall},
    {"fork", bench_fork},     {"pipe", bench_pipe},
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (unsigned i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
        if (argc > 1 && strcmp(argv[1], set[i].name)) {
            continue;
        }
        double start = now();
        uint64_t check = set[i].run();
        printf("bench %s %.6f %016llx\n", set[i].name, now() - start, (unsigned long long)check);
    }
    return 0;
}
