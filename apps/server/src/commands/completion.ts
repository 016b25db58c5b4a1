import { Argument, Command, type Option } from 'commander';

/** What a shell offers after a command. */
interface Node {
  /** Names from the program down, such as `/imodels/create`; empty for the program. */
  path: string;
  commands: { name: string; about: string }[];
  options: { flags: string[]; about: string; takes: 'nothing' | 'file' | 'text' | readonly string[] }[];
  /** Whether its arguments are files. */
  files: boolean;
}

const shells = ['bash', 'zsh', 'fish'] as const;
const install: Record<(typeof shells)[number], string> = {
  bash: 'offshoot completion bash > ~/.local/share/bash-completion/completions/offshoot',
  zsh: 'offshoot completion zsh > "${fpath[1]}/_offshoot"',
  fish: 'offshoot completion fish > ~/.config/fish/completions/offshoot.fish',
};

/**
 * `offshoot completion`: prints a script that completes commands and options in a shell.
 * The script is made from the commands once, so completing does not start the program.
 * @param allCommands loads every command
 */
export function completionCommand(allCommands: () => Promise<Command[]>): Command {
  return new Command('completion')
    .description('Print a script that completes commands and options in bash, zsh or fish.')
    .addArgument(new Argument('<shell>', 'shell to print it for').choices(shells))
    .addHelpText('after', `\nTo install it:\n${shells.map((shell) => `  ${install[shell]}`).join('\n')}`)
    .action(async (shell: (typeof shells)[number]) => {
      const nodes = nodesOf(await allCommands());
      process.stdout.write({ bash, zsh, fish }[shell](nodes));
    });
}

function nodesOf(commands: readonly Command[]): Node[] {
  const program: Node = {
    path: '',
    commands: commands.map(entryOf),
    options: [
      { flags: ['--version'], about: 'output the version number', takes: 'nothing' },
      { flags: ['--help'], about: 'display help', takes: 'nothing' },
    ],
    files: false,
  };
  return [program, ...commands.flatMap((command) => below('', command))];
}

function below(parent: string, command: Command): Node[] {
  const path = `${parent}/${command.name()}`;
  // Without a command, a group runs its first one, whose options it therefore takes.
  const own = command.commands[0] ?? command;
  return [
    {
      path,
      commands: [
        ...command.commands.map(entryOf),
        ...(command.registeredArguments[0]?.argChoices ?? []).map((name) => ({ name, about: '' })),
      ],
      options: [
        ...own.options.map((option) => ({
          flags: [option.short, option.long].filter((flag) => flag != null),
          about: sentence(option.description),
          takes: valueOf(option),
        })),
        { flags: ['--help'], about: 'display help', takes: 'nothing' as const },
      ],
      files: own.registeredArguments.some((argument) => isFile(argument.name())),
    },
    ...command.commands.flatMap((inner) => below(path, inner)),
  ];
}

const entryOf = (command: Command) => ({ name: command.name(), about: sentence(command.description()) });

function valueOf(option: Option): 'nothing' | 'file' | 'text' | readonly string[] {
  if (!option.required && !option.optional) return 'nothing';
  if (option.argChoices !== undefined) return option.argChoices;
  return isFile(option.flags) ? 'file' : 'text';
}

const isFile = (text: string): boolean => /\b(file|folder|path)\b/.test(text);

/** The first sentence, short enough for a line. */
function sentence(text: string): string {
  const [first = ''] = text.split(/[.:;] |\.$/);
  return first.length > 70 ? `${first.slice(0, 69)}…` : first;
}

/** A text as one word of a POSIX shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const fishQuoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

const pathsOf = (nodes: readonly Node[]): string[] => nodes.map(({ path }) => path).filter((path) => path !== '');

/** Patterns `path flag` of the options with a value of one kind. */
function valued(nodes: readonly Node[], isKind: (takes: Node['options'][number]['takes']) => boolean) {
  return nodes.flatMap(({ path, options }) =>
    options
      .filter(({ takes }) => isKind(takes))
      .map(({ flags, takes }) => ({ patterns: flags.map((flag) => quoted(`${path} ${flag}`)).join('|'), takes })),
  );
}

const withChoices = (nodes: readonly Node[]) =>
  valued(nodes, (takes) => typeof takes === 'object').map(({ patterns, takes }) => ({
    patterns,
    choices: takes as readonly string[],
  }));
const patternsOf = (nodes: readonly Node[], kind: 'file' | 'text'): string =>
  valued(nodes, (takes) => takes === kind)
    .map(({ patterns }) => patterns)
    .join('|');

/** Finds the command that the words before the cursor name. Bash and zsh differ only in the first index. */
function findPath(nodes: readonly Node[], words: string, first: number, current: string): string {
  return `  local at='' i
  for ((i = ${first}; i < ${current}; i++)); do
    case "$at/\${${words}[i]}" in
      ${pathsOf(nodes).map(quoted).join('|')}) at="$at/\${${words}[i]}" ;;
    esac
  done`;
}

function bash(nodes: readonly Node[]): string {
  const words = ({ commands, options }: Node) => ({
    names: commands.map(({ name }) => name).join(' '),
    flags: options.flatMap(({ flags }) => flags).join(' '),
  });
  return `# Completion of offshoot for bash. To install it:
#   ${install.bash}
_offshoot() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} names='' flags='' files=''
${findPath(nodes, 'COMP_WORDS', 1, 'COMP_CWORD')}
  COMPREPLY=()
  case "$at $prev" in
${withChoices(nodes)
  .map(
    ({ patterns, choices }) =>
      `    ${patterns}) COMPREPLY=($(compgen -W ${quoted(choices.join(' '))} -- "$cur")); return ;;`,
  )
  .join('\n')}
    ${patternsOf(nodes, 'file')})
      compopt -o filenames 2>/dev/null
      local IFS=$'\\n'
      COMPREPLY=($(compgen -f -- "$cur"))
      return ;;
    ${patternsOf(nodes, 'text')}) return ;;
  esac
  case "$at" in
${nodes
  .map((node) => {
    const { names, flags } = words(node);
    return `    ${quoted(node.path)}) names=${quoted(names)} flags=${quoted(flags)}${node.files ? ' files=yes' : ''} ;;`;
  })
  .join('\n')}
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  elif [[ -n $files ]]; then
    compopt -o filenames 2>/dev/null
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$names" -- "$cur"))
  fi
}
complete -F _offshoot offshoot
`;
}

function zsh(nodes: readonly Node[]): string {
  const described = (entries: { name: string; about: string }[]) =>
    entries.map(({ name, about }) => quoted(`${name}:${about}`)).join(' ');
  return `#compdef offshoot
# Completion of offshoot for zsh. To install it:
#   ${install.zsh}
_offshoot() {
${findPath(nodes, 'words', 2, 'CURRENT')}
  local -a names flags
  local files=''
  case "$at \${words[CURRENT-1]}" in
${withChoices(nodes)
  .map(({ patterns, choices }) => `    ${patterns}) compadd -- ${choices.map(quoted).join(' ')}; return ;;`)
  .join('\n')}
    ${patternsOf(nodes, 'file')}) _files; return ;;
    ${patternsOf(nodes, 'text')}) return ;;
  esac
  case "$at" in
${nodes
  .map(
    ({ path, commands, options, files }) =>
      `    ${quoted(path)}) names=(${described(commands)}) flags=(${described(options.flatMap(({ flags, about }) => flags.map((name) => ({ name, about }))))})${files ? ' files=yes' : ''} ;;`,
  )
  .join('\n')}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    _describe -o option flags
  elif [[ -n $files ]]; then
    _files
  else
    _describe command names
  fi
}
if [ "$funcstack[1]" = _offshoot ]; then
  _offshoot "$@"
else
  compdef _offshoot offshoot
fi
`;
}

function fish(nodes: readonly Node[]): string {
  const condition = (path: string) => `-n ${fishQuoted(`__offshoot_at ${path === '' ? '/' : path}`)}`;
  const lines = nodes.flatMap(({ path, commands, options, files }) => [
    ...commands.map(({ name, about }) => `complete -c offshoot ${condition(path)} -a ${name} -d ${fishQuoted(about)}`),
    ...options.map(({ flags, about, takes }) => {
      const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
      const value =
        takes === 'nothing'
          ? ''
          : takes === 'file'
            ? ' -r -F'
            : takes === 'text'
              ? ' -x'
              : ` -x -a ${fishQuoted(takes.join(' '))}`;
      return `complete -c offshoot ${condition(path)} ${names.join(' ')}${value} -d ${fishQuoted(about)}`;
    }),
    ...(files ? [`complete -c offshoot ${condition(path)} -F`] : []),
  ]);
  return `# Completion of offshoot for fish. To install it:
#   ${install.fish}
function __offshoot_at
  set -l at ''
  for word in (commandline -opc)[2..-1]
    if contains -- "$at/$word" ${pathsOf(nodes).join(' ')}
      set at "$at/$word"
    end
  end
  test "$at/" = "$argv[1]" -o "$at" = "$argv[1]"
end
complete -c offshoot -f
${lines.join('\n')}
`;
}
