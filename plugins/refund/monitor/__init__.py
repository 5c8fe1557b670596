"""Pure statistics over what the nights produced."""
