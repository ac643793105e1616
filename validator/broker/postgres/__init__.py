"""One broker on several machines: what its processes share lies in one PostgreSQL."""
