"""The page of the HTML report: what stands in it, as plain values, and the tables that its script shows."""
