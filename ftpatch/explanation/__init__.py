"""One site from bytes to verdict, why a function has none, and what a message of the kernel means."""
