# What a document presupposes, made before its first block; run_documents.py reads this in with
#   DOCUMENT    such as docs/training.md
#   FIRST_RUN   the folder that README.md's first run left, which the how-tos go on from
#   TESTS       the folder of this file

give() { python "$TESTS/readers_files.py" "$@"; }

on_a_small_machine() { # each command means the real one through small_machine.py
  export STAND_IN_WEIGHTS="$FIRST_RUN/tiny.safetensors"
  mkdir -p commands
  for real in "$(dirname "$(command -v python)")"/nnUNetv2_*; do
    name=$(basename "$real")
    printf '#!/bin/sh\nexec python "%s/small_machine.py" %s "$@"\n' "$TESTS" "$name" > "commands/$name"
  done
  chmod +x commands/*
  export PATH="$PWD/commands:$PATH"
}

after_the_first_run() {
  cp -a "$FIRST_RUN/." .
  rm -rf MASKS
  on_a_small_machine
  export nnUNet_raw="$PWD/nnunet/raw" nnUNet_preprocessed="$PWD/nnunet/preprocessed" nnUNet_results="$PWD/nnunet/results"
  ln -s nnunet/results/Dataset042_Vessels/nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_my__2d RESULTS
  ln -s RESULTS MODEL_FOLDER
}

forget_the_data_set() { rm -r "$nnUNet_raw"/* "$nnUNet_preprocessed"/* "$nnUNet_results"/*; }

case $DOCUMENT in
README.md)
  give weights tiny.safetensors
  cp tiny.safetensors dinov3_vitb16.safetensors
  give photos PHOTOS 255
  give images IMAGES
  on_a_small_machine
  export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1 OMP_NUM_THREADS=1
  ;;
docs/tutorial.md) # as a reader runs it, in a new, empty folder, with a weight file for its end
  cp "$FIRST_RUN/tiny.safetensors" dinov3_vitb16.safetensors
  ;;
docs/sharing.md) # RESULTS is a model with LoRA, of two folds, which the tutorial's is not
  cp -r "$FIRST_RUN"/nnunet/results/Dataset042_Vessels others_results
  ln -s others_results/*_my__2d RESULTS
  cp -r RESULTS/fold_0 RESULTS/fold_1
  rm -r RESULTS/fold_1/validation # of the same cases; an export takes no such folds
  ;;
docs/serving.md) ;; # goes on where sharing ended
*)
  export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1 OMP_NUM_THREADS=1
  after_the_first_run
  ;;
esac

case $DOCUMENT in
docs/choosing.md) rm my.yaml ;;
docs/compare.md)
  nnUNetv2_train 42 2d 0
  nnUNetv2_export_vit RESULTS model.zip
  ;;
docs/neighbours.md)
  forget_the_data_set
  rm RESULTS IMAGES/* && ln -s nnunet/results/Dataset043_Vessels_neighbours1/nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_recommended__2d RESULTS
  give volumes "$nnUNet_raw/Dataset042_Vessels"
  cp "$nnUNet_raw"/Dataset042_Vessels/imagesTr/volume_0_0000.nii.gz IMAGES
  nnUNetv2_plan_and_preprocess -d 42 --no_pp
  ;;
docs/own-data.md)
  forget_the_data_set
  give photos photos 255
  give photos discs 255 128 64
  give photos lesions '#ff0000' '#00ff00' '#0000ff'
  give photos tissues 10 20 30
  cp -r photos/images new
  ;;
docs/prediction.md) cp IMAGES/new_0_0000.png image_0000.png ;;
docs/probing.md)
  mkdir WEIGHTS_FOLDER
  give weights b.safetensors vit_small_patch16_224
  give weights a.pth vit_small_patch16_224
  cp b.safetensors WEIGHTS_FOLDER
  cp a.pth mine.pth
  echo a.pth > list.txt
  ;;
docs/training.md) cp tiny.safetensors mine.pth ;;
docs/troubleshooting.md)
  for mask in "$nnUNet_raw"/Dataset042_Vessels/labelsTr/*; do cp "PHOTOS/masks/$(basename "$mask")" "$mask"; done
  rm RESULTS/fold_0/checkpoint_final.pth # as a run that ended early
  ;;
packages/nnunet-vit-trainer/README.md)
  forget_the_data_set
  mkdir WEIGHTS_FOLDER
  give weights WEIGHTS_FOLDER/mine.safetensors vit_small_patch16_224
  ;;
esac
