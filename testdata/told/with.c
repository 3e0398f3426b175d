int g;
int with_one(int a) { return a + g; }
int with_two(int a) { return a * g; }
int __attribute__((patchable_function_entry(0))) with_none(int a) { return a - g; }
