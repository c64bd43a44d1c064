#!/usr/bin/python
# One service on one host: the program in place, the service restarted, and all as before if that fails.

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: deploy
short_description: Puts a version of a service in place and restarts it seamlessly
description:
  - Changes the link that the run script executes, restarts the service with C(seamless restart), and puts the link
    back if the new version does not serve or fails in its probation.
  - Does nothing if the link is right and the daemon runs the file that it points to.
options:
  pid_file:
    description: The path that the service gives to C(init).
    type: path
    required: true
  program:
    description: The file of the version, on this host. Without it, the service is restarted with the file that it has.
    type: path
  link:
    description: The link that the run script executes. Needed with C(program).
    type: path
  config:
    description: Files that the program reads at its start. If one is newer than the daemon, a restart is needed.
    type: list
    elements: path
    default: []
  restart:
    description: Whether to restart only if it is needed.
    type: str
    choices: [if_needed, always]
    default: if_needed
  check:
    description: Whether C(seamless check) must find no problem before anything is changed.
    type: bool
    default: true
  wait:
    description: Until when a restart is waited for.
    type: str
    choices: [committed, started]
    default: committed
  timeout:
    description:
      - How long the restart may take, with its probation, like C(60s) or C(2m).
      - By itself 60 s, and the time of the probation.
    type: str
  if_down:
    description: Whether a service that does not run is a failure. If not, the link is changed all the same.
    type: str
    choices: [fail, ignore]
    default: fail
  seamless:
    description: The program C(seamless).
    type: str
    default: seamless
author:
  - The seamless authors
"""

EXAMPLES = r"""
- name: The version serves
  seamless.fleet.deploy:
    program: /opt/web/versions/1.4.2/web
    link: /opt/web/web
    pid_file: /run/web/web.pid
"""

RETURN = r"""
verdict:
  description: What C(seamless restart --json) has said, if there was a restart.
  type: dict
  returned: after a restart
generation:
  description: The number of the generation that serves.
  type: int
  returned: if one serves
rolled_back:
  description: Whether the link was put back.
  type: bool
  returned: after a restart that has failed
"""

import json
import os
import time

from ansible.module_utils.basic import AnsibleModule

# Exit codes of `seamless restart`.
NOBODY_SERVES = 3
# How long the supervisor has to start the old version by itself.
BY_ITSELF = 3


class Deploy(object):
    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.result = {"changed": False}

    def seamless(self, verb, *options):
        command = [self.params["seamless"], verb, self.params["pid_file"]] + list(options)
        return self.module.run_command(command)

    def fail(self, text, **more):
        self.module.fail_json(msg="%s: %s" % (self.params["pid_file"], text), **dict(self.result, **more))

    def status(self):
        """What runs. Fails if that is unknown: then nothing is changed."""
        code, out, err = self.seamless("status", "--json")
        try:
            status = json.loads(out)
        except ValueError:
            self.fail("seamless status: exit code %d: %s" % (code, err or out))
        if status["state"] == "unknown":
            self.fail("it is unknown what runs: %s" % (status.get("error") or ", ".join(status["unknown"])))
        return status

    def linked(self):
        link = self.params["link"]
        if link is None:
            return None
        if os.path.islink(link):
            return os.readlink(link)
        if os.path.lexists(link):
            self.fail("%s is no link: move the program to the folder of its version, and link to it" % link)
        return None

    def put_link(self, target):
        """By a rename: a start sees the old version or the new one."""
        link = self.params["link"]
        if target is None:
            os.unlink(link)
            return
        new = "%s.%d.new" % (link, os.getpid())
        os.symlink(target, new)
        os.rename(new, link)

    def why_restart(self, status, wanted):
        """Why the daemon that serves has to be replaced; None if it has not."""
        if self.params["restart"] == "always":
            return "it is asked for"
        if wanted is not None:
            running = status.get("program")
            if running is None:
                self.fail("it is unknown which file the daemon runs: ask as root, or as the user of the service")
            if running != os.path.realpath(wanted):
                return "it runs %s" % running
        started = time.time() - (status.get("age") or 0)
        for path in self.params["config"]:
            if os.path.exists(path) and os.stat(path).st_mtime > started:
                return "%s is newer than the daemon" % path
        return None

    def find_problems(self):
        code, out, err = self.seamless("check", "--json")
        if code == 0:
            return
        try:
            findings = [one for one in json.loads(out)["findings"] if one["severity"] == "problem"]
        except ValueError:
            self.fail("seamless check: exit code %d: %s" % (code, err or out))
        texts = ["%s: %s (%s)" % (one["about"], one["says"], one.get("advice") or "no advice") for one in findings]
        self.fail("seamless check: %s" % "; ".join(texts))

    def restart(self):
        """The exit code of `seamless restart`, and what it said."""
        options = ["--json"]
        if self.params["timeout"] is not None:
            options += ["--timeout", self.params["timeout"]]
        if self.params["wait"] == "committed":
            options += ["--wait", "committed"]
        code, out, err = self.seamless("restart", *options)
        try:
            self.result["verdict"] = json.loads(out)
        except ValueError:
            self.result["verdict"] = {"exit_code": code, "says": (out + err).strip()}
        return code, (err or out).strip()

    def settle(self):
        """The old version is in place again. If it waits for a successor, its supervisor starts one from the old file.
        A process of the new version that hangs, or waits for another try, is ended first, by the supervisor."""
        status = self.status()
        began, told = time.time(), False
        while time.time() - began < 60:
            if status["serving"] and status["state"] == "serving" and status["starting"] is None:
                return True
            if not told and time.time() - began > BY_ITSELF:
                told = True
                command = (status["supervisor"] or {}).get("restart_command")
                if command is not None:
                    self.module.run_command(command, use_unsafe_shell=True)
            time.sleep(0.2)
            status = self.status()
        return False

    def run(self):
        program, link = self.params["program"], self.params["link"]
        if (program is None) != (link is None):
            self.fail("program and link belong together")
        before = self.linked()
        status = self.status()
        is_down = status["state"] == "none"
        if is_down and self.params["if_down"] == "fail":
            self.fail("no generation runs; nothing was changed")
        changes_link = program is not None and before != program
        why = None if is_down else self.why_restart(status, program)
        self.result["changed"] = changes_link or why is not None
        runs = status.get("program")
        self.result["diff"] = {
            "before_header": self.params["pid_file"],
            "after_header": self.params["pid_file"],
            "before": "link: %s\nruns: %s\n" % (before or link and "none", runs),
            "after": "link: %s\nruns: %s\n" % (
                program or before,
                (program and os.path.realpath(program) or runs) if why else runs,
            ),
        }
        if not self.result["changed"] or self.module.check_mode:
            self.module.exit_json(generation=status["generation"], restart=why, **self.result)
        if program is not None and not os.access(program, os.X_OK):
            self.fail("%s is no program that can be executed" % program)
        if self.params["check"]:
            self.find_problems()
        if changes_link:
            self.put_link(program)
        if why is None:
            self.module.exit_json(generation=status["generation"], restart=None, **self.result)
        code, said = self.restart()
        if code == 0:
            self.module.exit_json(generation=self.status()["generation"], restart=why, **self.result)
        if changes_link and before is not None:
            self.put_link(before)
            self.result["rolled_back"] = True
        settled = code != NOBODY_SERVES and (self.result.get("rolled_back", False) and self.settle())
        text = "the new version does not serve (exit code %d): %s" % (code, said)
        if self.result.get("rolled_back"):
            text += "; the link is put back"
            text += ", and the old version serves" if settled else ""
        self.fail(text, settled=settled)


def main():
    module = AnsibleModule(
        argument_spec={
            "pid_file": {"type": "path", "required": True},
            "program": {"type": "path"},
            "link": {"type": "path"},
            "config": {"type": "list", "elements": "path", "default": []},
            "restart": {"type": "str", "choices": ["if_needed", "always"], "default": "if_needed"},
            "check": {"type": "bool", "default": True},
            "wait": {"type": "str", "choices": ["committed", "started"], "default": "committed"},
            "timeout": {"type": "str"},
            "if_down": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
            "seamless": {"type": "str", "default": "seamless"},
        },
        supports_check_mode=True,
    )
    Deploy(module).run()


if __name__ == "__main__":
    main()
