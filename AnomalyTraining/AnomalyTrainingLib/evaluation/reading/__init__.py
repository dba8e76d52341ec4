"""Expert reading: a form to be filled in without a network, and what several readers' answers say together."""
