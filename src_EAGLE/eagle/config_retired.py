"""Published EAGLE and STEGO configuration keys that steer nothing here, so that people's own YAML files still load.

Some steer one command and nothing in another, whose schema does not have them.
"""

_ONE_CHOICE = "only one of its values was ever used"
_NO_NEIGHBOURS = "the positive of an image is the image itself"
_OTHER_LOSS = "belongs to a loss that EAGLE does not have"
_CLOUD = "the authors' cluster only"
_DEVICES = "use devices"
_PLAIN = "experiments are named by output_root and experiment_name"
_BESIDE = "an evaluation is written beside its checkpoint"

RETIRED_KEYS = {
    "arch": _ONE_CHOICE,
    "dino_feat_type": _ONE_CHOICE,
    "continuous": _ONE_CHOICE,
    "granularity": _ONE_CHOICE,
    "loader_crop_type": _ONE_CHOICE,
    "use_true_labels": _ONE_CHOICE,
    "use_recalibrator": _ONE_CHOICE,
    "use_fit_model": _ONE_CHOICE,
    "use_salience": _ONE_CHOICE,
    "stop_at_zero": _ONE_CHOICE,
    "has_labels": "labels are used where the files are there",
    "num_neighbors": _NO_NEIGHBOURS,
    "pos_intra_weight": _OTHER_LOSS,
    "pos_intra_shift": _OTHER_LOSS,
    "pos_inter_shift": _OTHER_LOSS,
    "neg_inter_shift": _OTHER_LOSS,
    "aug_alignment_weight": _OTHER_LOSS,
    "rec_weight": _OTHER_LOSS,
    "repulsion_weight": _OTHER_LOSS,
    "crf_weight": _OTHER_LOSS,
    "alpha": _OTHER_LOSS,
    "beta": _OTHER_LOSS,
    "gamma": _OTHER_LOSS,
    "w1": _OTHER_LOSS,
    "w2": _OTHER_LOSS,
    "shift": _OTHER_LOSS,
    "crf_samples": _OTHER_LOSS,
    "color_space": _OTHER_LOSS,
    "reset_probe_steps": _ONE_CHOICE,
    "hist_freq": "every validation draws class frequencies",
    "azureml_logging": _CLOUD,
    "submitting_to_aml": _CLOUD,
    "num_gpus": _DEVICES,
    "use_ddp": _DEVICES,
    "dark_mode": "figures are light; report.html follows the viewer",
    "log_dir": _PLAIN,
    "name": _PLAIN,
    "full_name": _PLAIN,
    "output_root": _BESIDE,
    "experiment_name": _BESIDE,
}
