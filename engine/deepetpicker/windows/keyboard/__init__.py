"""What keys do in the windows, in one table from which they are bound and from which their help is made."""

from deepetpicker.windows.keyboard.table import Keys, KeysWindow, bind_keys, bind_table, brief_help, yields_keys

__all__ = ["Keys", "KeysWindow", "bind_keys", "bind_table", "brief_help", "yields_keys"]
