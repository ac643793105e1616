"""The conductor: starts a whole network on this machine, watches it to its end, has it checked, and stops it.

Flow: refuse what cannot work → servers (EVM node, Redis, gateway) while wallets are made → contracts → brokers →
members and money on the chain → network.toml, first committee → validators, publishers, consumers, Flower → watch until
the closing bundle's report is final → collect from the operator listeners → the independent check as a subprocess →
summary. With ``--keep`` the network goes on instead (``living``). Exit status: 0 verified, 1 not verified or stuck, 2 a
wrong option or environment, 130 after Ctrl-C.

Decided against (docs/decisions): threads instead of processes (0022), and a summary from the validators' own databases
(0023).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from validator.devnet.carriers import Kind, choose_network, start_carrier
from validator.devnet.chaos import Ground, check_chaos, prepare
from validator.devnet.children import Children, MemoryWatch, measure_by_process
from validator.devnet.collect import Observations, Operators, write_collected
from validator.devnet.contracts import DevChain
from validator.devnet.crash import Crash
from validator.devnet.display import Display, clean
from validator.devnet.folder import RunFolder, open_folder
from validator.devnet.liar_check import catch_liar
from validator.devnet.living import Living
from validator.devnet.newcomer import fund_newcomer
from validator.devnet.outside_check import check_from_outside
from validator.devnet.plan import (
    CLOSING_WINDOWS,
    STUCK_S,
    Options,
    align_to_second,
    check_options,
    compute_launch_ms,
    make_key,
    members_of,
    plan_kill,
    validator_name,
)
from validator.devnet.preparation import (
    CHAIN_ID,
    CONSUMER_BALANCE,
    ChainPlan,
    Wallets,
    begin_network,
    contract_names,
    fill_chain,
    make_network,
    make_streams,
    mint_winston,
)
from validator.devnet.process import now_ms
from validator.devnet.progress import LOOK_S, PAUSE_S, Progress
from validator.devnet.recovery import Chaos
from validator.devnet.roles import (
    child_environment,
    make_validators,
    reserve_brokers,
    start_anvil,
    start_brokers,
    start_consumers,
    start_gateway,
    start_publisher,
    start_redis,
    wait_for_anvil,
    wait_for_port,
    wait_for_socket,
    write_run_file,
)
from validator.devnet.sdk_programs import READY_MS, check_with_sdk, launch_sdk, prepare_sdk, read_published
from validator.devnet.stage import Stage
from validator.devnet.storage import deploy_registries
from validator.devnet.summary import add_failures, make_summary, render_summary, write_summary
from validator.net.chain.registries import Registry
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, ValidatorError
from validator.protocol.parameters import ConsumerUrls, Network
from validator.quantities import show_count
from validator.setup.binaries import ROOT, find_anvil, find_redis_server
from validator.setup.console import SetupError


class Stuck(ValidatorError):
    """Nothing has moved for too long."""


def run_devnet(options: Options, started_ms: int) -> int:
    """Run a network; exit status. ``started_ms``: when the command line began, Unix ms.

    Raises:
        ConfigError: a wrong option or environment, before anything has been started.
    """
    check_options(options)
    check_chaos(options)
    if not (ROOT / "tests" / "verifier" / "__main__.py").is_file():
        raise ConfigError(
            "devnet: the independent check (tests/verifier) is not here; run devnet from a checkout", field="devnet"
        )
    try:
        binaries = Binaries(find_anvil(), find_redis_server())
    except SetupError as error:
        raise ConfigError(str(error), field="devnet") from error
    choose_network(options)
    if options.json_file is not None:
        _require_writable(options.json_file)
    with open_folder(options.data) as folder, _termination_as_exit():
        return Conductor(options, folder, binaries, started_ms).run()


@dataclass(frozen=True, slots=True)
class Binaries:
    """Programs that are not ours."""

    anvil: str
    redis_server: str


class Conductor:
    """One run."""

    def __init__(self, options: Options, folder: RunFolder, binaries: Binaries, started_ms: int) -> None:
        self.options = options
        self.folder = folder
        self.binaries = binaries
        self.started_ms = started_ms
        self.children = Children(folder.logs, folder.path, child_environment(folder))
        self.names = [validator_name(index) for index in range(options.validators)]
        self.display = Display()

    def run(self) -> int:
        """Everything from the first process to the exit status; leaves no process behind."""
        with self.display:
            memory = MemoryWatch(self.children)
            try:
                try:
                    stage = self._prepare()
                except ValidatorError as error:
                    raise ConfigError(f"devnet: set-up failed: {error}; logs in {self.folder.logs}") from error
                return self._run(stage, memory)
            except ConfigError:
                raise
            except ValidatorError as error:
                self.display.end_live()
                sys.stderr.write(f"devnet: not verified: {clean(str(error), 2_000)}; logs in {self.folder.logs}\n")
                self._write_failure(str(error), memory)
                return 1
            finally:
                memory.end()
                with _deaf():
                    self.children.stop()

    def _run(self, stage: Stage, memory: MemoryWatch) -> int:
        self._launch(stage)
        if self.options.keep:
            return Living(self.options, self.folder, self.children, self.display, stage).run()
        operators = Operators(
            {validator.name: validator.operator_url for validator in stage.validators},
            self.options.windows + CLOSING_WINDOWS + 1,
        )
        network = stage.network
        signing = SigningContext(network.chain_id, network.contracts.report_manager)
        observations = Observations(operators, signing)
        progress = Progress(self.options, network.genesis_ms, members_of(self.options))
        ground = Ground(self.children, self.folder, stage.validators, stage.brokers)
        chaos = Chaos(self.options.chaos, ground, progress, operators)
        try:
            crash = self._watch(stage, operators, observations, progress, chaos)
            memory.sample()
            memory.end()
            by_process = measure_by_process(self.children)
            observations.look({name: operators.fetch_status(name) for name in self.names})
            observations.write(self.folder.path / "observations.jsonl")
            if crash is not None:
                crash.collect(operators)
            rejected = write_collected(
                self.folder.path / "collected.json",
                operators,
                self.names,
                killed=None if crash is None else crash.describe(),
                votes={} if crash is None else crash.statements(),
                brokers_away=chaos.brokers_away(),
                chain_away=chaos.chain_away(),
            )
            sdk = self._check_with_sdk(stage)
            lying = self._catch_liar(stage)
            hurt = chaos.failures(operators.fetch_statuses(self.names))
        finally:
            operators.close()
            chaos.close()
        self.display.change("checking the run from outside")
        figures = check_from_outside(self.folder)
        for part in (sdk, lying):
            if part is not None:
                add_failures(figures, part.pop("failures"))
        add_failures(figures, hurt)
        summary = make_summary(
            self.options,
            figures,
            invalid_rejected=rejected,
            killed=None if crash is None else crash.summarise(),
            seconds_setup=(stage.network.genesis_ms - self.started_ms) / 1000,
            seconds=(now_ms() - stage.network.genesis_ms) / 1000,
            memory_pss_bytes=memory.most_bytes,
            network=stage.carrier.describe(),
            sdk=sdk,
            lying=lying,
            chaos=chaos.summarise(),
            memory_by_process=by_process,
        )
        self.display.end_live()
        self.display.say("")
        for line in render_summary(summary).splitlines():
            self.display.say(line)
        self._write_summary(summary)
        return 0 if summary["verified"] else 1

    # --- set-up -----------------------------------------------------------------------------------

    def _prepare(self) -> Stage:
        """From nothing to a chain that knows everybody, and validators whose databases are migrated."""
        options, children, folder = self.options, self.children, self.folder
        say = self.display.say
        say(f"run folder    {folder.path}")
        wallets = Wallets(folder.path / "keys", self.names)
        anvil = start_anvil(children, self.binaries.anvil, CHAIN_ID)
        redis = start_redis(children, self.binaries.redis_server, folder, options.validators)
        gateway_port = start_gateway(children, folder)
        carrier = start_carrier(children, folder, options)
        rpc_url = wait_for_anvil(children, anvil)
        owner: SigningKey = make_key(options.seed, "network", "owner")
        chain = DevChain(rpc_url, owner)
        try:
            contracts = contract_names(chain.deploy().contracts)
            registries = deploy_registries(chain, owner)
            streams = make_streams(options, owner)
            places = reserve_brokers(options)
            gateway_url = f"http://127.0.0.1:{wait_for_port(children, gateway_port, 'gateway')}"
            wait_for_socket(children, redis)
            validators = make_validators(
                folder, options, self.names, rpc_url=rpc_url, gateway_url=gateway_url, redis=redis
            )
            prepare(options, folder, validators)
            broker_urls = [place.url for place in places]
            urls = tuple(validator.validator_url for validator in validators)
            addresses = wallets.wait()
            plan = ChainPlan(options, owner, streams, tuple(broker_urls), urls, addresses)
            fill_chain(chain, plan)
            fund_newcomer(chain, options)
            sdk = None
            if carrier.kind is Kind.REAL:
                ids = [stream.id for stream in streams]
                sdk = prepare_sdk(chain, options, carrier, owner, registries, broker_urls, ids, rpc_url)
            mint_winston(gateway_url, list(addresses.values()))
            launch_ms = compute_launch_ms(
                options.validators, options.brokers, options.consumers, len(os.sched_getaffinity(0))
            )
            genesis_ms = align_to_second(now_ms() + launch_ms + (READY_MS if sdk is not None else 0))
            network = make_network(chain, options, genesis_ms, ConsumerUrls((rpc_url,), (gateway_url,)))
            begin_network(chain, network, plan.validators, folder.path / "network.toml")
            start_brokers(
                children,
                folder,
                options,
                carrier,
                places,
                rpc_url=rpc_url,
                gateway_url=gateway_url,
                storage_registry=registries[Registry.STORAGE],
            )
        finally:
            chain.close()
        there = f"{show_count(len(streams), 'stream')}, {show_count(len(plan.validators), 'validator')}"
        say(f"EVM node      {rpc_url} (contracts deployed, {there})")
        say(f"gateway       {gateway_url}")
        say(f"network       {carrier.describe()}")
        return Stage(
            network,
            validators,
            rpc_url,
            gateway_url,
            places,
            streams,
            addresses,
            contracts,
            carrier,
            sdk,
        )

    def _launch(self, stage: Stage) -> None:
        """Validators first, since they take longest; then publishers, consumers and Flower."""
        options, children = self.options, self.children
        start_publisher(
            children,
            self.folder,
            options,
            stage.carrier,
            stage.streams,
            stage.broker_urls,
            stage.network.genesis_ms,
        )
        if stage.sdk is not None:
            stage.indexer_url = launch_sdk(children, self.folder, options, stage.sdk, stage.network.genesis_ms)
        inits = [validator.start_init(children) for validator in stage.validators]
        waiting = dict(zip(inits, stage.validators, strict=True))
        while waiting:
            children.check()
            for name in [name for name in waiting if not children.all[name].is_running]:
                waiting.pop(name).start(children)
            time.sleep(0.02)
        start_consumers(children, self.folder, options, stage.streams, stage.broker_urls, stage.network)
        say = self.display.say
        for validator in stage.validators:
            if options.flower == "all" or (options.flower == "first" and validator.index == 0):
                url, password = validator.start_flower(children, self.folder)
                say(f"Flower        {url} of {validator.name} (user operator, password {password})")
        for validator in stage.validators:
            say(f"{validator.name:<14}{validator.operator_url}/ (status page), {validator.validator_url} (peers)")
        say(f"logs          {self.folder.logs}")
        children.wait_for([f"{validator.name}.init" for validator in stage.validators], 60)
        write_run_file(
            self.folder,
            options,
            stage.network,
            rpc_url=stage.rpc_url,
            gateway_url=stage.gateway_url,
            wallets=stage.wallets,
            names=self.names,
            contracts=stage.contracts,
            consumer_balance=CONSUMER_BALANCE,
            killed=self._killed_name(stage.network),
        )

    def _killed_name(self, network: Network) -> str | None:
        if not self.options.kill_one:
            return None
        return self.names[plan_kill(self.options, network.genesis_ms).validator]

    # --- the run ----------------------------------------------------------------------------------

    def _watch(
        self, stage: Stage, operators: Operators, observations: Observations, progress: Progress, chaos: Chaos
    ) -> Crash | None:
        """Until the last report is final. Raises Stuck, ChildEnded."""
        crash = None
        if self.options.kill_one:
            plan = plan_kill(self.options, progress.genesis_ms)
            crash = Crash(plan, stage.validators[plan.validator], progress)
        display, next_look = self.display, 0.0
        while True:
            self.children.check()
            if crash is not None:
                for line in crash.advance(self.children, operators):
                    display.change(line)
            for line in chaos.advance():
                display.change(line)
            now_s = time.monotonic()
            if now_s >= next_look:
                next_look = now_s + LOOK_S
                asked = [name for name in self.names if name not in progress.away]
                statuses = operators.fetch_statuses(asked)
                for line in progress.take_in(statuses, now_ms(), time.monotonic()):
                    display.change(line)
                observations.look(statuses)
                display.show(progress)
                has_returned = chaos.is_over and (crash is None or crash.returned_ms is not None)
                if has_returned and progress.is_done(now_s):
                    display.change("the closing bundle's report is final")
                    return crash
                self._require_motion(progress, now_s)
            time.sleep(PAUSE_S)

    def _require_motion(self, progress: Progress, now_s: float) -> None:
        """Raises Stuck: no state has changed for 90 s, or for a window and a minute where windows are long."""
        if now_ms() < progress.genesis_ms:
            progress.note_change(now_s)
            return
        limit_s = max(STUCK_S, self.options.window_seconds + 60)
        if now_s - progress.changed_s > limit_s:
            raise Stuck(f"no state has changed for {limit_s:.0f} s: {progress.describe_wait()}")

    # --- the end ----------------------------------------------------------------------------------

    def _check_with_sdk(self, stage: Stage) -> dict[str, Any] | None:
        """Streamr's SDK reads back what it has published, where it has."""
        if stage.sdk is None:
            return None
        self.display.change("Streamr's SDK reads its stream back")
        messages = read_published(self.folder)
        environment = child_environment(self.folder)
        return check_with_sdk(self.folder, stage.sdk, stage.indexer_url, messages, environment)

    def _catch_liar(self, stage: Stage) -> dict[str, Any] | None:
        """A consumer and the other brokers name the broker that lies, where one does."""
        if self.options.lying_broker is None:
            return None
        self.display.change("looking for the broker that lies")
        streams = [(s.id, n) for s in stage.streams for n in range(s.partitions)]
        span = (stage.network.genesis_ms, now_ms())
        operators = [broker.operator_url for broker in stage.brokers]
        return catch_liar(self.folder, self.options, stage.broker_urls, operators, streams, span)

    def _write_summary(self, summary: Mapping[str, Any]) -> None:
        write_summary(self.folder.path / "summary.json", summary)
        if self.options.json_file is not None:
            try:
                write_summary(self.options.json_file, summary)
            except OSError as error:
                self.display.say(f"devnet: --json: cannot write {self.options.json_file}: {error.strerror}")

    def _write_failure(self, reason: str, memory: MemoryWatch) -> None:
        """A run that has not come to its end leaves a summary too."""
        summary = make_summary(
            self.options,
            {"verified": False, "failures": [reason]},
            invalid_rejected={},
            killed=None,
            seconds_setup=0.0,
            seconds=(now_ms() - self.started_ms) / 1000,
            memory_pss_bytes=memory.most_bytes,
            network=self.options.network,
        )
        with suppress(OSError):
            self._write_summary(summary)


# --- signals, files -------------------------------------------------------------------------------


def _require_writable(path: Path) -> None:
    """Raises ConfigError if a file cannot be written there; leaves none behind."""
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"--json: cannot write {path}: {error.strerror}; name another file", field="json") from error


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """SIGTERM and SIGHUP end the run like Ctrl-C does, with the status a shell expects."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _deaf() -> Iterator[None]:
    """While processes are being stopped, an impatient second Ctrl-C must not leave half of them behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
