"""Campaigns against runs that write: killed, failed and interrupted at any moment, and several at once."""
