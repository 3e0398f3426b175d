"""Functions of a kernel that never return: a site that calls one stops the task, the processor or the whole machine.

The names are those that kernels of every machine may have; what only one machine's code calls at boot is left out.
Source: tools/objtool/noreturns.h (Linux 6.1 to 7.2).
"""

from __future__ import annotations

NORETURN = frozenset({
    "__fortify_panic", "__invalid_creds", "__kunit_abort", "__module_put_and_kthread_exit", "__reiserfs_panic",
    "__stack_chk_fail", "__ubsan_handle_builtin_unreachable", "arch_call_rest_init", "arch_cpu_idle_dead",
    "bch2_trans_in_restart_error", "bch2_trans_restart_error", "bch2_trans_unlocked_error", "btrfs_assertfail",
    "cpu_startup_entry", "do_exit", "do_group_exit", "do_task_dead", "fortify_panic", "kthread_complete_and_exit",
    "kthread_exit", "kunit_try_catch_throw", "make_task_dead", "mpt_halt_firmware", "nmi_panic_self_stop", "panic",
    "panic_smp_self_stop", "rest_init", "rust_begin_unwind", "rust_helper_BUG", "start_kernel", "stop_this_cpu",
    "usercopy_abort", "vpanic",
})  # fmt: skip
