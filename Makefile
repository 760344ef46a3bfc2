# microsbx: one non-recursive Makefile.
#
#   make            everything: build/microsbx, build/microsbx-vmm, build/agent
#   make demo       install what is missing, build, run the example
#   make check      all tests; ends with "N passed, N failed, N skipped"
#   make check-long the same, and what takes too long for every run
#   make check-host try this very host, and write what it is into one file
#   make lint fuzz bench kernels images install clean
#
# Sources are picked up by folder, one library per folder. Variants build
# beside each other: make CC=clang BUILD=build/clang, make SAN=1 BUILD=build/asan.

BUILD ?= build
# make V=1 shows the commands; without it, one short line a step.
ifdef V
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n' $(1) $(2)
endif
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
VERSION := 0.1.0

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wcast-qual -Wimplicit-fallthrough -Werror
CFLAGS_ALL := -std=gnu11 -D_GNU_SOURCE -O2 -g -I. -I$(BUILD)/gen -pthread \
	-ffunction-sections -fdata-sections \
	-DMICROSBX_VERSION='"$(VERSION)"' $(WARNINGS)
HARDENING := -fstack-protector-strong -fPIE
LDFLAGS_ALL := -pthread -Wl,-z,relro,-z,now -Wl,-z,noexecstack \
	-Wl,--gc-sections

ifdef SAN
CFLAGS_ALL += -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
LDFLAGS_ALL += -fsanitize=address,undefined
PIE := -pie
STATIC_PIE := -pie
STATIC :=
else
HARDENING += -D_FORTIFY_SOURCE=2
PIE := -pie
# Harness and monitor are static: they start without a dynamic loader, in less
# memory, and what is linked into the monitor is all there is to attack.
STATIC_PIE := -static-pie
STATIC := -static
endif
CFLAGS_ALL += $(HARDENING) $(CFLAGS)
LDFLAGS_ALL += $(LDFLAGS)

# ---- sources, per folder -------------------------------------------------
BASE_SRC := $(wildcard base/*.c)
DEVICES_SRC := $(wildcard devices/*.c devices/*/*.c)
# What harness and monitor share of vmm/: the configuration and the messages.
VMM_PUBLIC_SRC := vmm/vm_config.c vmm/monitor_proto.c vmm/state_file.c \
	vmm/segments.c
VMM_MAIN_SRC := vmm/main.c
VMM_SRC := $(filter-out $(VMM_PUBLIC_SRC) $(VMM_MAIN_SRC), \
	$(wildcard vmm/*.c vmm/x86/*.c))
TRIAL_SRC := $(wildcard trial/*.c)
CLI_SRC := $(wildcard cli/*.c)
# The guest's protocol codec is linked by both sides.
GUEST_PUBLIC_SRC := $(wildcard guest/proto*.c)
GUEST_MAIN_SRC := guest/main.c
GUEST_SRC := $(filter-out $(GUEST_PUBLIC_SRC) $(GUEST_MAIN_SRC), \
	$(wildcard guest/*.c))
TEST_HELPER_SRC := $(wildcard tests/*.c)
UNIT_SRC := $(wildcard tests/unit/check_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
VMTEST_SRC := $(wildcard tests/vm/*.c)
BENCH_SRC := $(wildcard bench/*.c)
BENCH_HELPER_SRC := $(wildcard bench/bare/*.c)

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
ALL_SRC := $(BASE_SRC) $(DEVICES_SRC) $(VMM_PUBLIC_SRC) $(VMM_MAIN_SRC) \
	$(VMM_SRC) $(TRIAL_SRC) $(CLI_SRC) $(GUEST_PUBLIC_SRC) \
	$(GUEST_MAIN_SRC) $(GUEST_SRC) $(TEST_HELPER_SRC) $(UNIT_SRC) \
	$(FUZZ_SRC) $(VMTEST_SRC) $(BENCH_SRC) $(BENCH_HELPER_SRC) \
	scripts/kvmhost-pty.c

LIBBASE := $(BUILD)/lib/libbase.a
LIBDEVICES := $(BUILD)/lib/libdevices.a
LIBVMMPUBLIC := $(BUILD)/lib/libvmmpublic.a
LIBVMM := $(BUILD)/lib/libvmm.a
LIBPROTO := $(BUILD)/lib/libproto.a
LIBGUEST := $(BUILD)/lib/libguest.a
LIBTRIAL := $(BUILD)/lib/libtrial.a
LIBCLI := $(BUILD)/lib/libcli.a
LIBTESTS := $(BUILD)/lib/libtests.a
LIBBENCH := $(BUILD)/lib/libbench.a

HARNESS_LIBS := -ljansson -lcrypto -lz -lm
CHECK_LIBS := -lcheck -lsubunit -lm -lrt

PROGRAMS := $(BUILD)/microsbx $(BUILD)/microsbx-vmm $(BUILD)/agent
# Of scripts/kvmhost, which makes it when it wants it.
KVMHOST_PTY := $(BUILD)/kvmhost-pty
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(UNIT_SRC))
VM_TESTS := $(patsubst tests/vm/%.c,$(BUILD)/tests/vm/%,$(VMTEST_SRC))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(FUZZ_SRC))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(BENCH_SRC))

# ---- targets -------------------------------------------------------------
.PHONY: all programs tests benches fuzzers fuzz-programs demo check check-long \
	check-host lint fuzz bench kernels images install clean deps
.DELETE_ON_ERROR:
.SECONDARY:

all: programs $(KVMHOST_PTY)
programs: $(PROGRAMS)
tests: $(UNIT_TESTS) $(VM_TESTS)
benches: $(BENCHES)

deps:
	@scripts/deps

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

define library
$(1): $(call objects,$(2))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$^
endef
$(eval $(call library,$(LIBBASE),$(BASE_SRC)))
$(eval $(call library,$(LIBDEVICES),$(DEVICES_SRC)))
$(eval $(call library,$(LIBVMMPUBLIC),$(VMM_PUBLIC_SRC)))
$(eval $(call library,$(LIBVMM),$(VMM_SRC)))
$(eval $(call library,$(LIBPROTO),$(GUEST_PUBLIC_SRC)))
$(eval $(call library,$(LIBGUEST),$(GUEST_SRC)))
$(eval $(call library,$(LIBTRIAL),$(TRIAL_SRC)))
$(eval $(call library,$(LIBCLI),$(filter-out cli/main.c,$(CLI_SRC))))
$(eval $(call library,$(LIBTESTS),$(TEST_HELPER_SRC)))
$(eval $(call library,$(LIBBENCH),$(BENCH_HELPER_SRC)))

# The ACPI table of the machine, as C (iasl names the array by the file).
$(BUILD)/gen/dsdt.h: vmm/x86/dsdt.asl
	@mkdir -p $(@D)
	$(Q)cd $(@D) && cp $(abspath $<) dsdt.asl && iasl -ve -tc dsdt.asl >/dev/null
	$(Q)sed 's/^unsigned char/static const unsigned char/' $(@D)/dsdt.hex >$@
	$(Q)rm $(@D)/dsdt.hex
$(BUILD)/obj/vmm/x86/acpi.o: $(BUILD)/gen/dsdt.h

# The assembler reads these, which a cache of compilations does not see.
$(BUILD)/obj/tests/bare_guests.o: $(wildcard tests/vm/bare/*.S)
$(BUILD)/obj/tests/bare_guests.o: export CCACHE_DISABLE = 1

$(BUILD)/microsbx-vmm: $(call objects,$(VMM_MAIN_SRC)) $(LIBVMM) \
		$(LIBVMMPUBLIC) $(LIBDEVICES) $(LIBBASE)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(STATIC_PIE) -o $@ $^ -lfdt -lcrypto -lz

$(BUILD)/microsbx: $(call objects,cli/main.c) $(LIBCLI) $(LIBTRIAL) \
		$(LIBVMMPUBLIC) $(LIBPROTO) $(LIBBASE)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(STATIC_PIE) -o $@ $^ $(HARNESS_LIBS)

$(BUILD)/agent: $(call objects,$(GUEST_MAIN_SRC)) $(LIBGUEST) $(LIBPROTO)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(STATIC) -o $@ $^
ifndef SAN
	$(Q)strip $@
endif

$(KVMHOST_PTY): $(call objects,scripts/kvmhost-pty.c)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(STATIC) -o $@ $^

TEST_LIBS := $(LIBTESTS) $(LIBCLI) $(LIBTRIAL) $(LIBVMM) $(LIBVMMPUBLIC) \
	$(LIBGUEST) $(LIBPROTO) $(LIBDEVICES) $(LIBBASE)

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(PIE) -o $@ $< -Wl,--start-group $(TEST_LIBS) \
		-Wl,--end-group $(CHECK_LIBS) -lfdt $(HARNESS_LIBS)

$(BUILD)/tests/vm/%: $(BUILD)/obj/tests/vm/%.o $(LIBTESTS) $(LIBTRIAL) \
		$(LIBVMM) $(LIBVMMPUBLIC) $(LIBPROTO) $(LIBDEVICES) $(LIBBASE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(PIE) -o $@ $^ -lfdt $(HARNESS_LIBS)

$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(LIBBENCH) $(LIBTESTS) \
		$(LIBTRIAL) $(LIBVMMPUBLIC) $(LIBPROTO) $(LIBBASE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(PIE) -o $@ $^ $(HARNESS_LIBS)

# The yardstick of a restore starts as fast as a program can.
$(BUILD)/bench/floor: $(BUILD)/obj/bench/floor.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) $(STATIC) -o $@ $^

# Fuzzers: clang's libFuzzer over one object folder of their own, which one
# inner make builds for all of them (two would write each other's libraries).
fuzzers:
	@$(MAKE) --no-print-directory CC=clang SAN=1 BUILD=$(BUILD)/fuzz \
		CFLAGS=-fsanitize=fuzzer-no-link fuzz-programs

fuzz-programs: $(FUZZERS)

$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer $(PIE) -o $@ $< \
		-Wl,--start-group $(TEST_LIBS) -Wl,--end-group -lfdt \
		$(HARNESS_LIBS) -lm

check:
	@scripts/deps
	@tests/run

check-long:
	@scripts/deps
	@tests/run lint unit sanitized clang fuzz bare images guests long

check-host:
	@scripts/deps build check image
	@scripts/check-host

demo:
	@scripts/deps build image emulate
	@$(MAKE) --no-print-directory -s programs
	@examples/untrusted-model/demo

lint:
	@scripts/lint

fuzz:
	@tests/fuzz/run

bench: programs benches
	@bench/run

kernels:
	@kernels/build minimal

images: programs
	@$(BUILD)/microsbx image build base
	@$(BUILD)/microsbx image build python

install: programs
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/microsbx \
		$(DESTDIR)$(PREFIX)/share/microsbx \
		$(DESTDIR)$(PREFIX)/share/man/man1
	install $(BUILD)/microsbx $(BUILD)/microsbx-vmm $(DESTDIR)$(PREFIX)/bin
	install $(BUILD)/agent $(DESTDIR)$(PREFIX)/lib/microsbx/agent
	cp -R images kernels $(DESTDIR)$(PREFIX)/share/microsbx/
	$(BUILD)/microsbx help --man > \
		$(DESTDIR)$(PREFIX)/share/man/man1/microsbx.1

clean:
	rm -rf $(BUILD)

-include $(patsubst %.c,$(BUILD)/obj/%.d,$(ALL_SRC))
