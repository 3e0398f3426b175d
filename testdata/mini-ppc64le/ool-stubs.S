/* The slots that the reserve does not cover; build.sh counts the records. */
#include "mini.h"

	.macro	area name, section, count
	.section \section, "aw", @progbits
	.type	\name\()_count, @object
	.globl	\name\()_count
\name\()_count:
	.long	\count
	.size	\name\()_count, 4
	.balign	8
	.globl	\name
\name:
	.space	\count * OOL_SLOT
	.size	\name, . - \name
	.endm

	area	ftrace_ool_stub_text_end, .tramp.ftrace.text, OOL_TEXT_END
	area	ftrace_ool_stub_inittext, .tramp.ftrace.init, OOL_INITTEXT
