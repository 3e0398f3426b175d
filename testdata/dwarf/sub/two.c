int two(int x);
int again(int x);



int two(int x)
{
	return x ^ 0x55;
}

__attribute__((section(".init.text"), patchable_function_entry(4, 2))) int again(int x)
{
	return two(x) + 7;
}
