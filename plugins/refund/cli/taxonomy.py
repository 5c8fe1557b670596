"""``refund taxonomy``: check the mapping from classes to categories, and look classes up."""
