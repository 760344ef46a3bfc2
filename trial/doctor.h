/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host can do for machines, measured where it can be measured. A
 * list of findings; the host is fit if no finding is a failure.
 */
#ifndef MICROSBX_TRIAL_DOCTOR_H
#define MICROSBX_TRIAL_DOCTOR_H

#include <stddef.h>

#define DOCTOR_FINDINGS_MAX 40

enum finding_level {
    FINDING_OK,
    FINDING_NOTE,    /* works, but somebody should know */
    FINDING_FAIL,    /* guests cannot run here */
    FINDING_UNKNOWN, /* could not be told */
};

struct finding {
    enum finding_level level;
    char name[24];    /* stable word */
    char text[256];   /* what was found */
    char remedy[256]; /* what to do; "" if nothing */
};

struct doctor {
    struct finding findings[DOCTOR_FINDINGS_MAX];
    size_t count;
};

enum doctor_verdict { DOCTOR_FIT = 0, DOCTOR_UNFIT = 1, DOCTOR_UNKNOWN = 125 };

/* Looks at everything; takes up to a few seconds on a slow host. */
void doctor_examine(struct doctor *ret_doctor);

enum doctor_verdict doctor_verdict(const struct doctor *doctor);

#endif
