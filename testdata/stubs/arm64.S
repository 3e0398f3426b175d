// A stub for arm64 sites that calls a C function and then goes on as if nothing had happened.
// In: x9 the caller's return address, x30 behind the site's branch; x0-x8, x18-x29 and sp come back as they were.
.equ FRAME, 96
        bti     c
        stp     x29, x9, [sp, #-16]!    // two frame records, so that a backtrace shows the function and its caller
        mov     x29, sp
        stp     x29, x30, [sp, #-FRAME]!
        mov     x29, sp
        stp     x0, x1, [sp, #16]
        stp     x2, x3, [sp, #32]
        stp     x4, x5, [sp, #48]
        stp     x6, x7, [sp, #64]
        str     x8, [sp, #80]
        bl      target                  // --hook SYMBOL
        ldp     x0, x1, [sp, #16]
        ldp     x2, x3, [sp, #32]
        ldp     x4, x5, [sp, #48]
        ldp     x6, x7, [sp, #64]
        ldr     x8, [sp, #80]
        ldp     x29, x9, [sp], #FRAME
        ldp     x29, x30, [sp], #16
        ret     x9
