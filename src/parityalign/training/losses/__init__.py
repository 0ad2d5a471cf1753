"""What levelling minimises: one file is one objective."""
