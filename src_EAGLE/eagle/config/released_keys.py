"""Released EAGLE and STEGO keys that have no effect here; YAML files that contain them still load."""

_ONE_CHOICE = "the released code only ever uses one value"
_NO_NEIGHBOURS = "the positive of an image is the image itself"
_OTHER_LOSS = "belongs to a loss that EAGLE does not use"
_CLOUD = "only for the authors' cluster"
_DEVICES = "use devices"
_PLAIN = "experiments are named by output_root and experiment_name"
_BESIDE = "evaluations are written next to the checkpoint"
_IN_CHECKPOINT = "model and dataset come from the checkpoint"

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
    "use_head": _ONE_CHOICE,
    "recluster_threshold": "the released code never reads it",
    "has_labels": "labels are used if their files exist",
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
    "hist_freq": "class frequencies are drawn after every validation",
    "azureml_logging": _CLOUD,
    "submitting_to_aml": _CLOUD,
    "num_gpus": _DEVICES,
    "use_ddp": _DEVICES,
    "dark_mode": "figures are light; report.html follows the viewer",
    "log_dir": _PLAIN,
    "name": _PLAIN,
    "full_name": _PLAIN,
}

# Keys of the released eval_config.yml that have an effect in other commands only.
RETIRED_IN_EVALUATION = {
    "output_root": _BESIDE,
    "experiment_name": _BESIDE,
    "run_picie": "PiCIE is another method",
    "dataset_name": _IN_CHECKPOINT,
    "model_type": _IN_CHECKPOINT,
    "dino_patch_size": _IN_CHECKPOINT,
    "pretrained_weights": _IN_CHECKPOINT,
    "projection_type": _IN_CHECKPOINT,
}
