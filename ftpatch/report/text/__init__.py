"""The text reports, one file for each kind of document: a function from the document to pieces of text."""
