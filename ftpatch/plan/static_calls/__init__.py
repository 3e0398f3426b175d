"""`static-calls --set`: what a static call calls, changed in its key and in its trampoline, in both or in neither.

    key.func            what the kernel writes into every site at boot, and a module's loader into the module's
    trampoline's jump   for calls before that, and for who is not patched

The sites stay: they name the trampoline, and the kernel rewrites each from key.func.
Source: kernel/static_call_inline.c, arch/x86/kernel/static_call.c (Linux 6.1, 6.12).
"""
