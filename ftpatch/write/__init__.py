"""From a plan to a file that appears whole or not at all."""
