"""From a request to a plan: every byte that will change, what it holds before, and who owns it. It writes nothing."""
