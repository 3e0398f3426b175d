"""From a file to its patch sites: the record table, the layout, the site table, and the selection from it."""
