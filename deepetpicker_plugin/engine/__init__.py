"""The engine as the plugin uses it: where it is, what it runs on, its processes, the pages it makes."""
