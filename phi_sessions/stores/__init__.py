"""Session stores. Each backend is a module of its own and is imported when it is asked for."""
