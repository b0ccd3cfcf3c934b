"""The commands that take many photos, one file each. Heavy imports wait until a call is known to make sense."""
