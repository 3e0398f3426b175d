# A stub for ppc64le sites that calls a C function and then goes on as if nothing had happened.
# In: r0 the caller's return address, LR behind the call of this stub; r1-r10 and r13-r31 come back as they were.
.equ FRAME, 144
        std     r0, 16(r1)
        mflr    r0
        stdu    r1, -32(r1)             # a frame of the function's, so that a backtrace shows it
        std     r0, 16(r1)
        stdu    r1, -FRAME(r1)
        std     r2, 40(r1)
        std     r3, 48(r1)
        std     r4, 56(r1)
        std     r5, 64(r1)
        std     r6, 72(r1)
        std     r7, 80(r1)
        std     r8, 88(r1)
        std     r9, 96(r1)
        std     r10, 104(r1)
        bcl     20, 31, 1f              # r2 may be anybody's TOC
1:      mflr    r12
        ld      r2, toc-1b(r12)
        bl      target                  # --hook SYMBOL
        nop
        ld      r2, 40(r1)
        ld      r3, 48(r1)
        ld      r4, 56(r1)
        ld      r5, 64(r1)
        ld      r6, 72(r1)
        ld      r7, 80(r1)
        ld      r8, 88(r1)
        ld      r9, 96(r1)
        ld      r10, 104(r1)
        addi    r1, r1, FRAME
        ld      r11, 16(r1)
        mtctr   r11
        addi    r1, r1, 32
        ld      r0, 16(r1)
        mtlr    r0
        bctr
        .balign 8
toc:    .quad   .TOC.
