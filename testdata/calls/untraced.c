/* No -pg: NOPs at the entries alone. */
int first(int a)
{
	return a + 1;
}

int second(int a)
{
	return a * 3;
}
