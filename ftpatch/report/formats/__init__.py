"""The report formats, one file each: a function from a document to pieces of text. It knows values, not verbs."""
