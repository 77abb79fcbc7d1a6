/* SPDX-License-Identifier: MIT */
/*
 * What the user may have meant: the candidate with the smallest edit distance, where a letter
 * added, left out, replaced or two swapped count one each (optimal string alignment). Upper and
 * lower case are the same.
 */
#include <string.h>

#include "base/options.h"
#include "base/range.h"

#define MAX_LENGTH 64 /* of words that are compared; nobody mistypes longer ones */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Both are at most MAX_LENGTH long. */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][MAX_LENGTH + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b_length; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned replaced = above[j - 1] + (lower(a[i - 1]) != lower(b[j - 1]));
            unsigned best = MIN(replaced, MIN(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1]))
                best = MIN(best, before[j - 2] + 1);
            row[j] = best;
        }
        unsigned *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[b_length];
}

const char *nearest_name(const char *word, const char *const *candidates, size_t count)
{
    size_t length = strnlen(word, MAX_LENGTH + 1);
    if (length == 0 || length > MAX_LENGTH)
        return NULL;

    unsigned best = MAX(1u, (unsigned)length / 3) + 1;
    const char *nearest = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t candidate_length = strnlen(candidates[i], MAX_LENGTH + 1);
        if (candidate_length == 0 || candidate_length > MAX_LENGTH)
            continue;
        unsigned d = distance(word, length, candidates[i], candidate_length);
        /* One letter replaced by another is no resemblance. */
        if (d < best && d < candidate_length) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}
