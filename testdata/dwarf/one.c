/* Lines are what the test is about: a function begins where it opens. */
#include "three.h"

int two(int x);

int one(int x)
{
	return two(x) + three(x);
}

__attribute__((section(".init.text"))) int begin(int x)
{
	return one(x) * 2;
}
