# Writes the Makefile of a training run.
printf 'train: app\n\tLLVM_PROFILE_FILE=app-%%p.profraw ./app > pages.txt\n' > Makefile
