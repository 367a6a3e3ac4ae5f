"""The promises, a module for each theme; `..catalogue` puts them in order."""
