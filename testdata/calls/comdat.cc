// Inline functions, each in a group of its own that a linker takes once.
int outside(int);

template <typename T> __attribute__((noinline)) T twice(T a)
{
	return outside(a) * 2;
}

int used(int a)
{
	return twice(a) + (int)twice((long)a);
}
