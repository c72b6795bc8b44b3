# shellcheck shell=bash disable=SC2034  # run.sh reads what is set here
# Sourced by run.sh: its arguments -> recipe first last exp again overrides list.
# A mistake ends the run before anything is installed or read: one line and exit status 2.

mistake() { printf 'error: %s; see ./run.sh --help\n' "$1" >&2; exit 2; }

declare -A option=([--stage]=-1 [--stop_stage]=7 [--exp]=default)
recipe='' list='' again=() overrides=()
while (( $# )); do
  case $1 in
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit ;;
    --list) list=yes; shift ;;
    --stage | --stop_stage | --exp)
      [[ -n ${2-} && $2 != --* ]] || mistake "$1 needs a value, for example $1 ${option[$1]}"
      [[ $1 != --stage ]] || again=(--again)
      option[$1]=$2; shift 2 ;;
    -*) mistake "unknown option '$1'; the options are ${!option[*]} --list --help, a setting is key=value" ;;
    [a-zA-Z_]*=*) overrides+=("$1"); shift ;;
    '') mistake "an empty argument; a recipe is a directory such as egs/demo" ;;
    =*) mistake "'$1' names no key; a setting is key=value" ;;
    *) [[ -z $recipe ]] || mistake "two recipes, '$recipe' and '$1'; run one after the other; a setting is key=value"
      recipe=$1; shift ;;
  esac
done

recipe=${recipe:-egs/demo}
first=${option[--stage]} last=${option[--stop_stage]} exp=${option[--exp]}
for number in "$first" "$last"; do
  [[ $number =~ ^-?[0-9]$|^[1-9][0-9]$ ]] || mistake "'$number' is no stage; the stages are the numbers -1 to 7"
done
(( first <= last && first <= 7 && last >= -1 )) ||
  mistake "no stage lies from --stage $first to --stop_stage $last; the stages are the numbers -1 to 7"
