from .model_files import load_model as load_model, save_model as save_model
