"""Training, evaluation and release of the models in hubmodels. Nothing in hubmodels imports this package."""
