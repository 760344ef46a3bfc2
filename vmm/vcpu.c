/* SPDX-License-Identifier: Apache-2.0 */
/* One virtual CPU; see the header. */
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "vmm/exit_text.h"

/*
 * A vCPU thread runs the loop below, registers of devices and at most one
 * request handed in by a register write. Only pages that are touched cost.
 */
#define STACK_SIZE ((size_t)256 << 10)

/* A vCPU thread's own, for a signal handler, which is told nothing else. */
static _Thread_local struct kvm_run *own_run;

/* A host that is out of threads may soon have some: for a second. */
#define REFUSED_MAX 100u
#define REFUSED_WAIT_NS 10000000

/* ---- the gate ---- */

void vcpu_gate_init(struct vcpu_gate *gate)
{
    *gate = (struct vcpu_gate){0};
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
}

void vcpu_gate_fini(struct vcpu_gate *gate)
{
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

void vcpu_gate_shut(struct vcpu_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->shut = true;
    pthread_mutex_unlock(&gate->lock);
}

void vcpu_gate_wait_out(struct vcpu_gate *gate, unsigned count)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->out < count)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

int vcpu_gate_wait_arrived(struct vcpu_gate *gate, unsigned count)
{
    int error;

    pthread_mutex_lock(&gate->lock);
    while (gate->arrived < count)
        pthread_cond_wait(&gate->changed, &gate->lock);
    error = gate->error;
    pthread_mutex_unlock(&gate->lock);
    return error;
}

void vcpu_gate_open(struct vcpu_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->begun = true;
    gate->shut = false;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void vcpu_gate_end(struct vcpu_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->over = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* A new thread is there. True if it is to go in. */
static bool gate_arrive(struct vcpu_gate *gate, int error)
{
    bool in;

    pthread_mutex_lock(&gate->lock);
    gate->arrived++;
    if (gate->error == 0)
        gate->error = error;
    pthread_cond_broadcast(&gate->changed);
    /* It may be shut again by now: who has come in is waited for. */
    while (!gate->begun && !gate->over)
        pthread_cond_wait(&gate->changed, &gate->lock);
    in = !gate->over;
    pthread_mutex_unlock(&gate->lock);
    return in;
}

/* A thread came out. True if it is to go in again. */
static bool gate_pass(struct vcpu_gate *gate, bool ended)
{
    bool again;

    pthread_mutex_lock(&gate->lock);
    gate->out++;
    pthread_cond_broadcast(&gate->changed);
    while (!ended && gate->shut && !gate->over)
        pthread_cond_wait(&gate->changed, &gate->lock);
    again = !ended && !gate->over;
    if (again)
        gate->out--;
    pthread_mutex_unlock(&gate->lock);
    return again;
}

/* ---- exits ---- */

/* A little-endian value of 1, 2, 4 or 8 bytes in KVM's buffer. */
static uint64_t get_value(const uint8_t *p, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, p, size);
    return value;
}

/* One OUT or IN, or a whole REP OUTS or INS of the same port. */
static void handle_io(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    struct bus *bus = vcpu->env->pio;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            bus_write(bus, run->io.port, size, get_value(data, size));
        } else {
            uint64_t value = bus_read(bus, run->io.port, size);

            memcpy(data, &value, size);
        }
    }
}

static void handle_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    struct bus *bus = vcpu->env->mmio;
    unsigned len = run->mmio.len;
    bool sized = len == 1 || len == 2 || len == 4 || len == 8;

    if (!sized) {
        /* Part of an access across a page's end: no register is there. */
        atomic_fetch_add_explicit(&bus->unclaimed, 1, memory_order_relaxed);
        if (!run->mmio.is_write)
            memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
        return;
    }
    if (run->mmio.is_write) {
        bus_write(bus, run->mmio.phys_addr, len,
                  get_value(run->mmio.data, len));
    } else {
        uint64_t value = bus_read(bus, run->mmio.phys_addr, len);

        memcpy(run->mmio.data, &value, len);
    }
}

/* The machine is over because of this exit. */
static void report_end(struct vcpu *vcpu, enum monitor_exit_reason reason)
{
    char text[MONITOR_TEXT_MAX + 1];

    exit_text_describe(&vcpu->kvm, text, sizeof(text));
    vcpu->env->ended(vcpu->env->ctx, reason, 0, text);
}

static enum monitor_exit_reason internal_reason(const struct kvm_run *run)
{
    return run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
               ? MONITOR_EXIT_EMULATION
               : MONITOR_EXIT_INTERNAL;
}

static void handle_system_event(struct vcpu *vcpu)
{
    const struct vcpu_env *env = vcpu->env;

    switch (vcpu->kvm.run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        env->ended(env->ctx, MONITOR_EXIT_POWER_OFF, 0, "");
        break;
    case KVM_SYSTEM_EVENT_RESET:
        env->ended(env->ctx, MONITOR_EXIT_RESET, 0, "");
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        env->ended(env->ctx, MONITOR_EXIT_PANIC, 0, "");
        break;
    default:
        report_end(vcpu, MONITOR_EXIT_INTERNAL);
        break;
    }
}

/* Deals with one exit. True if the guest is to run on. */
static bool handle_exit(struct vcpu *vcpu)
{
    switch (vcpu->kvm.run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(vcpu);
        return true;
    case KVM_EXIT_MMIO:
        handle_mmio(vcpu);
        return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return true;
    case KVM_EXIT_SHUTDOWN:
        report_end(vcpu, MONITOR_EXIT_TRIPLE_FAULT);
        return false;
    case KVM_EXIT_SYSTEM_EVENT:
        handle_system_event(vcpu);
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        report_end(vcpu, internal_reason(vcpu->kvm.run));
        return false;
    default:
        report_end(vcpu, MONITOR_EXIT_INTERNAL);
        return false;
    }
}

static void wait_a_moment(void)
{
    const struct timespec moment = {.tv_nsec = REFUSED_WAIT_NS};

    (void)nanosleep(&moment, NULL); /* or until it is kicked */
}

/*
 * KVM says EAGAIN, and means that the CPU waits for its INIT, which is fine, or
 * that it has just been started (RUNNABLE, and the next run runs it), or that
 * the host has no thread for it. False if that was the end.
 */
static bool bear_refusal(struct vcpu *vcpu)
{
    const struct vcpu_env *env = vcpu->env;
    struct kvm_mp_state state;

    if (ioctl(vcpu->kvm.fd, KVM_GET_MP_STATE, &state) == 0 &&
        state.mp_state != KVM_MP_STATE_RUNNABLE)
        return true;
    if (++vcpu->refused > REFUSED_MAX) {
        env->ended(env->ctx, MONITOR_EXIT_HOST_ERROR, -EAGAIN,
                   "KVM refuses to run the guest");
        return false;
    }
    if (vcpu->refused > 1)
        wait_a_moment();
    return true;
}

/* False if that was the end. */
static bool run_once(struct vcpu *vcpu, int *ret_result)
{
    const struct vcpu_env *env = vcpu->env;
    int ret = ioctl(vcpu->kvm.fd, KVM_RUN, 0) < 0 ? -errno : 0;

    atomic_fetch_add_explicit(&vcpu->exits, 1, memory_order_relaxed);
    *ret_result = ret;
    if (ret == -EAGAIN)
        return bear_refusal(vcpu);
    vcpu->refused = 0;
    if (ret == -EINTR)
        return true;
    if (ret < 0) {
        env->ended(env->ctx, MONITOR_EXIT_HOST_ERROR, ret, "KVM_RUN failed");
        return false;
    }
    return handle_exit(vcpu);
}

/*
 * An access that the guest is in the middle of is finished by the next KVM_RUN
 * only, which also puts its result into the registers (KVM's API, KVM_EXIT_IO).
 * It may take several; with immediate_exit the guest runs no further.
 */
static bool finish_access(struct vcpu *vcpu)
{
    int result;
    bool going;

    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    do {
        going = run_once(vcpu, &result);
    } while (going && result == 0);
    return going;
}

/* The harness has told it to stay out, and the order to leave is on its way. */
static void wait_outside(const struct vcpu *vcpu)
{
    const struct timespec moment = {.tv_nsec = 1000000}; /* or until a kick */

    if (__atomic_load_n(&vcpu->kvm.run->immediate_exit, __ATOMIC_SEQ_CST) &&
        !atomic_load_explicit(vcpu->env->leave, memory_order_acquire))
        (void)nanosleep(&moment, NULL);
}

/* Runs the guest until it is to leave: false if that was the end. */
static bool run_guest(struct vcpu *vcpu)
{
    const struct vcpu_env *env = vcpu->env;
    int result;

    /*
     * No race with vcpu_kick: it sets immediate_exit before it signals, so a
     * thread between the test and KVM_RUN comes straight out again.
     */
    while (!atomic_load_explicit(env->leave, memory_order_acquire)) {
        if (!run_once(vcpu, &result))
            return false;
        if (result == -EINTR)
            wait_outside(vcpu);
    }
    return finish_access(vcpu);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    if (clock_gettime(clock, &ts) < 0)
        return 0;
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/*
 * One KVM_RUN that enters no guest: KVM makes what a VM still needs at its
 * first, a thread of its own among it (since Linux 6.15). 0, or why not.
 */
static int try_run(struct vcpu *vcpu)
{
    int ret = -EAGAIN;

    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < REFUSED_MAX && ret == -EAGAIN; i++) {
        ret = ioctl(vcpu->kvm.fd, KVM_RUN, 0) < 0 ? -errno : -EIO;
        if (ret == -EAGAIN)
            wait_a_moment();
    }
    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    return ret == -EINTR ? 0 : ret;
}

static void *thread_main(void *arg)
{
    struct vcpu *vcpu = arg;
    int error;

    error = try_run(vcpu);
    own_run = vcpu->kvm.run; /* till then nobody has a reason to stop it */
    if (gate_arrive(vcpu->env->gate, error))
        while (gate_pass(vcpu->env->gate, !run_guest(vcpu)))
            ;
    atomic_store(&vcpu->cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID));
    return NULL;
}

int vcpu_init(struct vcpu *vcpu, int kvm_fd, int vm_fd, unsigned id,
              const struct vcpu_env *env)
{
    *vcpu = (struct vcpu){.env = env};
    return kvm_vcpu_open(&vcpu->kvm, kvm_fd, vm_fd, id);
}

void vcpu_fini(struct vcpu *vcpu)
{
    if (vcpu->kvm.run)
        kvm_vcpu_close(&vcpu->kvm);
}

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/*
 * The harness has stopped us all. Its signal is taken before the thread takes
 * another step, so also one that is just about to call KVM_RUN stays out.
 */
static void stay_out(int signal_number)
{
    (void)signal_number;
    if (own_run)
        __atomic_store_n(&own_run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

int vcpu_setup_signals(void)
{
    /* A handler, and no SA_RESTART: KVM_RUN must return, not start again. */
    const struct sigaction kick = {.sa_handler = ignore_signal};
    const struct sigaction out = {.sa_handler = stay_out};

    if (sigaction(SIGRTMIN, &kick, NULL) < 0 ||
        sigaction(MONITOR_SIGNAL_STAY_OUT, &out, NULL) < 0)
        return -errno;
    return 0;
}

int vcpu_start(struct vcpu *vcpu)
{
    pthread_attr_t attr;
    int ret = pthread_attr_init(&attr);

    if (ret != 0)
        return -ret;
    ret = pthread_attr_setstacksize(&attr, STACK_SIZE);
    if (ret == 0)
        ret = pthread_create(&vcpu->thread, &attr, thread_main, vcpu);
    vcpu->started = ret == 0;
    pthread_attr_destroy(&attr);
    return -ret;
}

void vcpu_kick(struct vcpu *vcpu)
{
    if (!vcpu->started)
        return;
    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pthread_kill(vcpu->thread, SIGRTMIN);
}

void vcpu_unkick(struct vcpu *vcpu)
{
    if (vcpu->started)
        __atomic_store_n(&vcpu->kvm.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

void vcpu_join(struct vcpu *vcpu)
{
    if (!vcpu->started)
        return;
    pthread_join(vcpu->thread, NULL);
    vcpu->started = false;
}

uint64_t vcpu_cpu_ns(const struct vcpu *vcpu)
{
    uint64_t ended = atomic_load(&vcpu->cpu_ns);
    clockid_t clock;

    if (ended > 0 || !vcpu->started ||
        pthread_getcpuclockid(vcpu->thread, &clock) != 0)
        return ended;
    return clock_ns(clock);
}
