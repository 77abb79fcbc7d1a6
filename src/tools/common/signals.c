/* SPDX-License-Identifier: MIT */
/* Signals as flags. See signals.h. */
#include "tools/common/signals.h"

#include <signal.h>
#include <stddef.h>

#include "base/range.h"

static const int ending[] = {SIGINT, SIGTERM, SIGHUP};

static volatile sig_atomic_t caught, usr1;

static void on_ending(int number)
{
    caught = number;
}

static void on_usr1(int number)
{
    (void)number;
    usr1 = 1;
}

void signals_catch(void)
{
    struct sigaction action = {.sa_handler = on_ending, .sa_flags = (int)SA_RESETHAND};

    caught = 0;
    for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
        struct sigaction old;
        /* What whoever started us ignores (nohup) stays ignored. */
        if (sigaction(ending[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(ending[i], &action, NULL);
        }
    }
}

int signals_caught(void)
{
    return caught;
}

void signals_release(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
        struct sigaction old;
        if (sigaction(ending[i], NULL, &old) == 0 && old.sa_handler == on_ending) {
            signal(ending[i], SIG_DFL);
        }
    }
}

void signals_catch_usr1(void)
{
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};

    sigaction(SIGUSR1, &action, NULL);
}

bool signals_take_usr1(void)
{
    bool was_set = usr1 != 0;

    usr1 = 0;
    return was_set;
}
