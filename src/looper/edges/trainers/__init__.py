"""What makes adapters: the parent that keeps them, and the child process that trains."""
