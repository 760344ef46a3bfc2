/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That a machine is in the very state of its snapshot, shown by what the
 * monitor finds when it looks: all memory hashed through the guest's mapping,
 * devices and registers read back, private overlays empty. The harness
 * compares; what a monitor says that has run a guest before is worth no more
 * than that monitor.
 */
#ifndef MICROSBX_TRIAL_PROOF_H
#define MICROSBX_TRIAL_PROOF_H

#include <stdbool.h>

#include "base/digest.h"
#include "base/failure.h"
#include "trial/monitor.h"
#include "trial/snapshot.h"

struct proof {
    bool done;                  /* it was made, and holds */
    bool exposed;               /* the prover had run a guest before */
    char root[DIGEST_HEX_SIZE]; /* the snapshot's, over memory and disks */
};

/*
 * Has the monitor look, and compares. Pre: as for monitor_prove. 0; -EBADMSG
 * with "snapshot_proof" in *f, naming the first place that differs; -EINVAL: a
 * disk is not the snapshot's; or what monitor_prove gave.
 */
int proof_make(struct monitor *m, const struct snapshot *snapshot,
               struct proof *ret_proof, struct failure *f)
    __attribute__((warn_unused_result));

#endif
