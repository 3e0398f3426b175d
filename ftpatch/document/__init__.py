"""The values of the interface: the IMAGE object of the JSON reports, its rows and its figures."""

SCHEMA = 1  # of the JSON reports
