/* A small, valid .BTF: int, its function type, and the function slot_probe. */
	.section .BTF, "a"
0:	.2byte	0xeb9f
	.byte	1, 0
	.4byte	24, 0, 2f - 1f, 2f - 1f, 3f - 2f
1:	.4byte	5f - 2f, 1 << 24, 4, 1 << 24 | 32		/* [1] INT int */
	.4byte	0, 13 << 24 | 1, 1, 6f - 2f, 1			/* [2] FUNC_PROTO int (int x) */
	.4byte	7f - 2f, 12 << 24 | 1, 2			/* [3] FUNC slot_probe, global */
2:	.byte	0
5:	.asciz	"int"
6:	.asciz	"x"
7:	.asciz	"slot_probe"
3:
