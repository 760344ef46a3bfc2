/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual CPU and the thread that runs it.
 *
 * The thread's life: run the guest, hand accesses to the buses, and end when
 * asked to or when the guest or KVM ended the machine. It holds no lock of its
 * own; what stands behind the buses does.
 *
 * A pause does not end it: it waits at the machine's gate. Starting a thread
 * anew would cost more, and so would KVM's finding another one in its vCPU.
 *
 * Owner: the machine. Everything but `exits` belongs to the main thread before
 * vcpu_start, after vcpu_join and while the gate is shut with all threads out,
 * and to the vCPU's thread in between.
 */
#ifndef MICROSBX_VMM_VCPU_H
#define MICROSBX_VMM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/bus.h"
#include "vmm/kvm.h"

/* Where the threads of one machine wait while it is paused. */
struct vcpu_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool shut;    /* who comes out waits */
    bool over;    /* who comes out, or waits, ends */
    unsigned out; /* threads that wait or have ended */
    /* Before the first instruction. */
    unsigned arrived;
    bool begun; /* opened once: new threads go in */
    int error;  /* the first that one of them met, or 0 */
};

void vcpu_gate_init(struct vcpu_gate *gate);
void vcpu_gate_fini(struct vcpu_gate *gate);
/* Main thread. Shuts it; wait until `count` threads are out; opens it. */
void vcpu_gate_shut(struct vcpu_gate *gate);
void vcpu_gate_wait_out(struct vcpu_gate *gate, unsigned count);
/* Waits for `count` new threads: 0, or what one of them met. Pre: never opened.
 */
int vcpu_gate_wait_arrived(struct vcpu_gate *gate, unsigned count)
    __attribute__((warn_unused_result));
void vcpu_gate_open(struct vcpu_gate *gate);
/* Nobody goes in again. Any thread. */
void vcpu_gate_end(struct vcpu_gate *gate);

/* What a vCPU needs of its machine; borrowed, constant while it runs. */
struct vcpu_env {
    struct bus *pio;
    struct bus *mmio;
    /* Set to have them come out; a vCPU looks before it enters the guest. */
    const atomic_bool *leave;
    struct vcpu_gate *gate;
    /*
     * This vCPU saw the end of the machine: called on its thread, which then
     * returns. text is borrowed for the call.
     */
    void (*ended)(void *ctx, enum monitor_exit_reason reason, int error,
                  const char *text);
    void *ctx;
};

struct vcpu {
    struct kvm_vcpu kvm;
    const struct vcpu_env *env;
    pthread_t thread;
    bool started;
    unsigned refused; /* runs in a row, by KVM and for no fault of the guest */
    atomic_uint_fast64_t exits;  /* returns of KVM_RUN */
    atomic_uint_fast64_t cpu_ns; /* of the thread, once it has ended */
};

/* Opens vCPU id. 0 or -errno. */
int vcpu_init(struct vcpu *vcpu, int kvm_fd, int vm_fd, unsigned id,
              const struct vcpu_env *env) __attribute__((warn_unused_result));
/* Pre: not running. Accepts a zeroed or failed one. */
void vcpu_fini(struct vcpu *vcpu);

/* Once per process, before the first vcpu_start: the signal that kicks. */
int vcpu_setup_signals(void) __attribute__((warn_unused_result));

/*
 * Makes the thread, which sees whether KVM would run the guest and then waits
 * till the gate is opened for the first time. 0 or -errno.
 */
int vcpu_start(struct vcpu *vcpu) __attribute__((warn_unused_result));
/*
 * Makes the vCPU leave the guest; env->leave must be set already. It does not
 * wait. No-op if not started. A vCPU that came out has finished the access it
 * was at, so that its registers are whole.
 */
void vcpu_kick(struct vcpu *vcpu);
/* Takes the kick back. Pre: it is out. */
void vcpu_unkick(struct vcpu *vcpu);
void vcpu_join(struct vcpu *vcpu);

/* CPU time of the thread so far, in nanoseconds. Main thread. */
uint64_t vcpu_cpu_ns(const struct vcpu *vcpu);

#endif
