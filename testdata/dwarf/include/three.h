

static __attribute__((noinline)) int three(int x)
{
	return x * x - 3;
}
