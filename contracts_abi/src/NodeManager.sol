// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {EXIT_EPOCHS, EXIT_TIME, INodeManager, IPayers, IReportManager, IToken, NODE_LINE} from "./Types.sol";
import {Owned} from "./Owned.sol";

/// Nodes, their stakes, and the treasury. A delegation is a number of *shares* of a node's stake: a reward or penalty
/// changes the stake, hence every delegation in proportion, in one write. All tokens here belong to somebody:
/// tokens here + what was captured and not drawn yet = balances + stakes + what joins and leaves + treasury.
///
/// What joins counts as stake at once, but has no part in the rewards of the next report (once there has been one): they
/// are for what was served before. Where all that a node has joins, what it has earned before joins with it, as its own
/// delegation. What leaves counts no longer as stake and earns nothing, but penalties take their part of it until it is free:
/// two epochs have ended by their last report, so whoever was chosen for a committee with a stake has it here until the
/// last report of that epoch; or, where none ends any more, a time has passed.
contract NodeManager is Owned, INodeManager {
    uint256 public constant MAX_METADATA = 4096;
    uint256 private constant MAX_INDEX = (1 << 31) - 1; // a line with more takes from the node
    uint256 private constant LISTED = 1 << 56; // of a pool's slot, behind stake and what is leaving: nothing joins

    /// One slot, all that a report writes of a node. `joinedAt`: number of the report that what joins has no part in,
    /// from 1; 0 where nothing joins.
    struct Pool {
        uint96 stake;
        uint96 leaving;
        uint56 joinedAt;
        bool listed;
    }

    /// A generation's shares are void once what they are of is used up by penalties.
    struct Shares {
        uint128 active;
        uint128 leaving;
    }

    struct Generations {
        uint32 active;
        uint32 leaving;
    }

    /// What joined before one report, all together: its tokens, and the shares that they became.
    struct Batch {
        uint96 amount;
        uint128 shares;
        uint32 generation;
    }

    struct Joining {
        uint96 amount;
        uint56 joinedAt;
    }

    struct Exit {
        uint128 shares;
        uint32 generation;
        uint32 epoch;
        uint48 time;
    }

    /// One slot. `streamsCaptured` counts what StoreManager has captured for us, modulo 2^96.
    struct Totals {
        uint96 treasury;
        uint96 streamsCaptured;
        uint64 reports;
    }

    IToken public immutable stakeToken;
    uint256 public immutable stakeRequiredAmount;
    address public immutable reportManager;
    address public immutable storeManager;
    address public immutable queryManager;

    uint256 public startBlockNumber;
    mapping(address account => uint256) public balanceOf;
    /// By which a report names a node; never changes, from 1.
    mapping(address node => uint256) public indexOf;
    uint32 public count;

    Totals private _totals;
    uint96 private _streamsDrawn;
    uint96 private _consumersDrawn;
    address[] private _nodes;
    address[] private _staked;
    mapping(uint256 index => address) private _addresses;
    mapping(address node => uint256) private _position; // in _nodes, from 1; 0 = not registered
    mapping(address node => uint256) private _stakedPosition; // in _staked, from 1; 0 = below the requirement
    mapping(address node => string) private _metadata;
    mapping(address node => uint256) private _lastSeen;
    Pool[1 << 31] private _pools; // by index: a slot each, found without hashing
    mapping(uint256 index => Shares) private _totalShares;
    mapping(uint256 index => Generations) private _generations;
    mapping(uint256 index => uint256) private _joining;
    mapping(uint256 index => mapping(uint256 joinedAt => Batch)) private _batches;
    mapping(uint256 index => mapping(uint256 generation => mapping(address delegate => uint256))) private _shares;
    mapping(uint256 index => mapping(address delegate => Joining)) private _joiningOf;
    mapping(uint256 index => mapping(address delegate => Exit)) private _exits;
    mapping(address delegate => uint256[]) private _leavingFrom; // indices of nodes

    event NodeIndexed(uint32 indexed index, address indexed nodeAddress);
    event NodeUpdated(address indexed nodeAddress, string metadata, bool indexed isNew, uint256 lastSeen);
    event NodeRemoved(address indexed nodeAddress);
    event StakeDelegateUpdated(
        address indexed delegate,
        address indexed node,
        uint256 amount,
        uint256 totalStake,
        uint256 totalDelegated,
        bool delegated
    );
    event ExitReleased(address indexed delegate, address indexed node, uint256 amount);
    event Staked(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event TreasuryWithdrawn(address indexed account, uint256 amount);
    event Penalised(uint32 indexed index, uint256 fromStake, uint256 fromLeaving);
    event NodeLineShort(uint32 indexed index, int256 wanted, int256 settled);

    error OnlyReportManager();
    error NotRegistered();
    error MetadataTooLong();
    error IsMember(address node);
    error ZeroAmount();
    error AmountTooSmall();
    error InsufficientBalance(uint256 available, uint256 wanted);
    error TransferFailed();
    error ZeroRequirement();
    error WithdrawalsPaused();
    error LinesNotSorted(uint256 line);

    constructor(
        IToken token,
        uint256 stakeRequiredAmount_,
        address reportManager_,
        address storeManager_,
        address queryManager_
    ) {
        if (stakeRequiredAmount_ == 0) revert ZeroRequirement();
        stakeToken = token;
        stakeRequiredAmount = stakeRequiredAmount_;
        reportManager = reportManager_;
        storeManager = storeManager_;
        queryManager = queryManager_;
    }

    // --- membership ------------------------------------------------------------------------------------------------

    /// Registers the caller, or replaces its metadata. JSON, by convention with "http" and "validator" URLs.
    function upsertNode(string calldata metadata) external {
        _upsert(metadata);
    }

    /// Registers the caller and delegates `amount` of its own tokens to itself.
    function join(uint256 amount, string calldata metadata) external {
        _upsert(metadata);
        stakeAndDelegate(amount, msg.sender);
    }

    /// Takes the caller off the list. What is delegated to it stays its delegates', who can take it out as before.
    function removeNode() external {
        _remove();
    }

    /// Undelegates all the caller has delegated to itself, takes it off the list, and pays what is free already.
    function leave() external {
        uint256 node = indexOf[msg.sender];
        _remove();
        uint256 delegated = delegatesOf(msg.sender, msg.sender);
        if (delegated > 0) _undelegate(node, msg.sender, delegated);
        _releaseAll();
        uint256 amount = balanceOf[msg.sender];
        if (amount > 0 && !IReportManager(reportManager).withdrawalsPaused()) withdraw(amount);
    }

    /// As the network's clients have always read a node; `next` and `prev` are its neighbours in nodeAddresses.
    function nodes(address node)
        external
        view
        returns (
            uint256 index,
            string memory metadata,
            uint256 lastSeen,
            address next,
            address prev,
            uint256 stakeAmount
        )
    {
        index = indexOf[node];
        uint256 place = _position[node];
        if (place != 0 && place < _nodes.length) next = _nodes[place];
        if (place > 1) prev = _nodes[place - 2];
        return (index, _metadata[node], _lastSeen[node], next, prev, _stakeOf(index));
    }

    function totalNodes() external view returns (uint256) {
        return _nodes.length;
    }

    function nodeAddresses() external view returns (address[] memory) {
        return _nodes;
    }

    function nodeAt(uint256 index) external view returns (address) {
        return _addresses[index];
    }

    /// What counts as a node's stake: without what is leaving.
    function nodeStake(address node) external view returns (uint256) {
        return _stakeOf(indexOf[node]);
    }

    /// What of a node's stake has a part in the rewards of the next report: what has not joined since the last one.
    function nodeEarning(address node) external view returns (uint256) {
        uint256 index = indexOf[node];
        return _pools[index].joinedAt > _totals.reports ? _pools[index].stake : _stakeOf(index);
    }

    /// What is leaving a node and can still be taken by a penalty.
    function nodeLeaving(address node) external view returns (uint256) {
        return _pools[indexOf[node]].leaving;
    }

    function isStaked(address node) external view returns (bool) {
        return _stakedPosition[node] != 0;
    }

    function totalStaked() external view returns (uint256) {
        return _staked.length;
    }

    /// Staked nodes `from` (first: 0) to `from + count`, with what a validator needs of them. Only staked nodes are
    /// listed, so that nobody can make the list long for free.
    function stakedNodes(uint256 from, uint256 most)
        external
        view
        returns (
            uint256 total,
            address[] memory addresses,
            uint256[] memory stakes,
            string[] memory metadata,
            uint256[] memory indices
        )
    {
        total = _staked.length;
        uint256 size = from >= total ? 0 : total - from;
        if (size > most) size = most;
        addresses = new address[](size);
        stakes = new uint256[](size);
        metadata = new string[](size);
        indices = new uint256[](size);
        for (uint256 i = 0; i < size; ++i) {
            address node = _staked[from + i];
            addresses[i] = node;
            indices[i] = indexOf[node];
            stakes[i] = _stakeOf(indices[i]);
            metadata[i] = _metadata[node];
        }
    }

    // --- money -----------------------------------------------------------------------------------------------------

    function stakeTokenAddress() external view returns (address) {
        return address(stakeToken);
    }

    function treasurySupply() public view returns (uint256) {
        return _totals.treasury;
    }

    function streamsCaptured() external view returns (uint96) {
        return _totals.streamsCaptured;
    }

    /// All that is here or on its way here.
    function totalSupply() external view returns (uint256) {
        return stakeToken.balanceOf(address(this)) + _undrawnStreams() + _undrawnConsumers();
    }

    /// Brings `amount` of the caller's tokens here, delegated to nobody yet.
    function stake(uint256 amount) public {
        if (amount == 0) revert ZeroAmount();
        if (!stakeToken.transferFrom(msg.sender, address(this), amount)) revert TransferFailed();
        balanceOf[msg.sender] += amount;
        emit Staked(msg.sender, amount);
    }

    /// Makes `amount` of the caller's balance stake of `node`. It earns from the report after the next on.
    function delegate(uint256 amount, address node) public {
        if (amount == 0) revert ZeroAmount();
        if (_position[node] == 0) revert NotRegistered();
        _releaseAll();
        uint256 available = balanceOf[msg.sender];
        if (available < amount) revert InsufficientBalance(available, amount);
        balanceOf[msg.sender] = available - amount;

        uint256 index = indexOf[node];
        _enter(index);
        Pool memory pool = _pools[index];
        uint256 shares = _totalShares[index].active;
        if (_isLive(pool.stake, shares)) {
            // slither-disable-next-line divide-before-multiply -- the rounding is what is measured here
            uint256 worth = (((amount * shares) / pool.stake) * pool.stake) / shares;
            if (worth < amount - amount / 1000) revert AmountTooSmall();
        }
        if (_totals.reports == 0) {
            // Before the first report there is nothing that others have earned.
            (uint256 minted, uint256 generation) = _mint(index, pool.stake, amount);
            _shares[index][generation][msg.sender] += minted;
            pool.stake += uint96(amount);
        } else {
            pool.joinedAt = uint56(_totals.reports + 1);
            _join(index, msg.sender, amount, pool.joinedAt);
        }
        pool.listed = _list(node, pool.listed, pool.stake + _joining[index]);
        _pools[index] = pool;
        emit StakeDelegateUpdated(msg.sender, node, amount, _stakeOf(index), delegatesOf(msg.sender, node), true);
    }

    // slither-disable-next-line reentrancy-no-eth -- the token is the network's; credit comes after it
    function stakeAndDelegate(uint256 amount, address node) public {
        stake(amount);
        delegate(amount, node);
    }

    /// Begins to take `amount` of the caller's delegation out of the node's stake. Again renews the wait of all of it.
    function undelegate(uint256 amount, address node) external {
        if (amount == 0) revert ZeroAmount();
        uint256 delegated = delegatesOf(msg.sender, node);
        if (delegated < amount) revert InsufficientBalance(delegated, amount);
        _undelegate(indexOf[node], node, amount);
    }

    /// Adds what of the caller has left a node for long enough to its balance.
    function release(address node) external {
        _release(indexOf[node]);
    }

    /// Pays `amount` of the caller's balance out, with all that has left nodes for long enough.
    function withdraw(uint256 amount) public {
        if (IReportManager(reportManager).withdrawalsPaused()) revert WithdrawalsPaused();
        _releaseAll();
        uint256 available = balanceOf[msg.sender];
        if (available < amount) revert InsufficientBalance(available, amount);
        balanceOf[msg.sender] = available - amount;
        emit Withdrawn(msg.sender, amount);
        _pay(amount);
    }

    function treasuryWithdraw(uint256 amount) external onlyOwner {
        if (IReportManager(reportManager).withdrawalsPaused()) revert WithdrawalsPaused();
        uint256 available = _totals.treasury;
        if (available < amount) revert InsufficientBalance(available, amount);
        _totals.treasury = uint96(available - amount);
        emit TreasuryWithdrawn(msg.sender, amount);
        _pay(amount);
    }

    /// Fetches what reports have captured at StoreManager and QueryManager.
    function draw() public {
        uint96 fromStreams = _undrawnStreams();
        if (fromStreams > 0) {
            unchecked {
                _streamsDrawn += fromStreams;
            }
            IPayers(storeManager).hand(fromStreams);
        }
        uint96 fromConsumers = _undrawnConsumers();
        if (fromConsumers > 0) {
            unchecked {
                _consumersDrawn += fromConsumers;
            }
            IPayers(queryManager).hand(fromConsumers);
        }
    }

    /// What a delegate has of a node's stake, rounded down, with what it has just added.
    function delegatesOf(address delegate_, address node) public view returns (uint256) {
        uint256 index = indexOf[node];
        Joining memory own = _joiningOf[index][delegate_];
        uint256 shares = _shares[index][_generations[index].active][delegate_];
        uint256 joining = 0;
        if (own.amount != 0) {
            Batch memory batch = _batches[index][own.joinedAt];
            if (batch.amount == 0) joining = own.amount;
            else if (batch.generation == _generations[index].active) shares += _partOf(batch, own.amount);
        }
        return joining + _worth(_pools[index].stake, _totalShares[index].active, shares);
    }

    /// What of a delegate is leaving a node, and when it is free: after the epoch, or at the time.
    function exitOf(address delegate_, address node)
        external
        view
        returns (uint256 amount, uint32 epoch, uint48 time)
    {
        uint256 index = indexOf[node];
        Exit memory leaving = _exits[index][delegate_];
        // slither-disable-next-line incorrect-equality -- shares of this generation, or void
        if (leaving.generation == _generations[index].leaving) {
            amount = _worth(_pools[index].leaving, _totalShares[index].leaving, leaving.shares);
        }
        return (amount, leaving.epoch, leaving.time);
    }

    // --- settlement ------------------------------------------------------------------------------------------------

    /// Applies a report's node lines with what was captured for them. Penalties come first, each at most what the node
    /// has, what is leaving included. If captures and penalties together are less than the rewards, all rewards shrink in
    /// proportion. A line for a node without any stake goes to the treasury. Whatever the lines say:
    /// rewards + treasury = captured + penalties. `given`: what the lines say, penalties negative.
    function settle(bytes calldata lines, uint256 fromStreams, uint256 fromConsumers)
        external
        returns (int256 given, uint256 treasury)
    {
        if (msg.sender != reportManager) revert OnlyReportManager();
        Totals memory totals = _totals;
        (uint256 rewards, uint256 losses) = _readLines(lines);
        unchecked {
            treasury = fromStreams + fromConsumers;
            if (losses != 0) treasury += _penaliseAll(lines);
            given = int256(rewards) - int256(losses);
            uint256 available = treasury;
            bool inFull = rewards <= available;
            uint256 place;
            while (true) {
                uint256 index;
                uint256 amount;
                assembly ("memory-safe") {
                    for { } lt(place, lines.length) { place := add(place, NODE_LINE) } {
                        let line := calldataload(add(lines.offset, place))
                        index := shr(224, line)
                        amount := and(shr(128, line), 0xffffffffffffffffffffffff)
                        if or(gt(index, MAX_INDEX), iszero(amount)) { continue }
                        // The plain case: a staked node that nothing joins, paid in full. Its stake is lowest.
                        let slot := add(_pools.slot, index)
                        let pool := sload(slot)
                        if iszero(and(eq(shr(192, pool), LISTED), inFull)) { break }
                        if iszero(and(pool, 0xffffffffffffffffffffffff)) { break }
                        sstore(slot, add(pool, amount))
                        treasury := sub(treasury, amount)
                    }
                }
                if (place == lines.length) break;
                treasury -= _reward(index, amount, inFull ? amount : (amount * available) / rewards, totals.reports);
                place += NODE_LINE;
            }
            uint256 captured = uint96(totals.streamsCaptured + fromStreams);
            uint256 word = uint256(totals.reports + 1) << 192 | captured << 96 | uint96(totals.treasury + treasury);
            assembly ("memory-safe") {
                sstore(_totals.slot, word)
            }
        }
    }

    /// What the lines give and what they take, in all; they ascend by index.
    function _readLines(bytes calldata lines) private pure returns (uint256 rewards, uint256 losses) {
        bytes32 unsorted = LinesNotSorted.selector;
        assembly ("memory-safe") {
            let last := 0
            let end := add(lines.offset, lines.length)
            for { let at := lines.offset } lt(at, end) { at := add(at, NODE_LINE) } {
                let line := calldataload(at)
                let index := and(shr(224, line), MAX_INDEX)
                if iszero(gt(index, last)) {
                    mstore(0, unsorted)
                    mstore(4, div(sub(at, lines.offset), NODE_LINE))
                    revert(0, 36)
                }
                last := index
                let amount := and(shr(128, line), 0xffffffffffffffffffffffff)
                switch shr(255, line)
                case 0 { rewards := add(rewards, amount) }
                default { losses := add(losses, amount) }
            }
        }
    }

    function _penaliseAll(bytes calldata lines) private returns (uint256 taken) {
        for (uint256 place = 0; place < lines.length; place += NODE_LINE) {
            uint256 index = uint32(bytes4(lines[place:]));
            if (index > MAX_INDEX) taken += _penalise(index & MAX_INDEX, uint96(bytes12(lines[place + 4:])));
        }
    }

    /// Adds a reward to a stake: `reward` of the `wanted`, nothing where there is no stake. Where none of it earns yet, the
    /// reward is for what the node itself has served: it joins as the node's own delegation, and nobody catches it.
    function _reward(uint256 index, uint256 wanted, uint256 reward, uint256 reports) private returns (uint256) {
        Pool memory pool = _pools[index];
        if (pool.joinedAt != 0 && pool.joinedAt <= reports) pool = _fold(index);
        // slither-disable-next-line incorrect-equality -- our own books, nothing sent here changes them
        if (pool.stake == 0 && pool.joinedAt == 0) reward = 0;
        if (reward != wanted) emit NodeLineShort(uint32(index), int256(wanted), int256(reward));
        if (reward == 0) return 0;
        // slither-disable-next-line incorrect-equality -- our own books, nothing sent here changes them
        if (pool.stake == 0) _join(index, _addresses[index], reward, pool.joinedAt);
        else pool.stake += uint96(reward);
        pool.listed = _list(_addresses[index], pool.listed, pool.stake + _joining[index]);
        _pools[index] = pool;
        return reward;
    }

    /// From stake and what is leaving in proportion; what is joining is stake by then.
    function _penalise(uint256 index, uint256 wanted) private returns (uint256 taken) {
        Pool memory pool = _pools[index];
        if (pool.joinedAt != 0) pool = _fold(index);
        uint256 all = uint256(pool.stake) + pool.leaving;
        taken = wanted < all ? wanted : all;
        if (taken < wanted) emit NodeLineShort(uint32(index), -int256(wanted), -int256(taken));
        // slither-disable-next-line incorrect-equality -- our own books, nothing sent here changes them
        if (taken == 0) return 0;
        uint256 fromLeaving = (taken * pool.leaving) / all;
        if (taken - fromLeaving > pool.stake) fromLeaving = taken - pool.stake;
        pool.leaving -= uint96(fromLeaving);
        pool.stake -= uint96(taken - fromLeaving);
        emit Penalised(uint32(index), taken - fromLeaving, fromLeaving);
        if (pool.listed) pool.listed = _list(_addresses[index], true, pool.stake);
        _pools[index] = pool;
    }

    // --- shares ----------------------------------------------------------------------------------------------------

    /// Makes what has joined a node shares of its stake. Returns the pool as it is then, already stored.
    function _fold(uint256 index) private returns (Pool memory pool) {
        pool = _pools[index];
        uint256 amount = _joining[index];
        if (amount != 0) {
            (uint256 minted, uint256 generation) = _mint(index, pool.stake, amount);
            _batches[index][pool.joinedAt] = Batch(uint96(amount), uint128(minted), uint32(generation));
            pool.stake += uint96(amount);
            _joining[index] = 0;
        }
        pool.joinedAt = 0;
        _pools[index] = pool;
    }

    /// New shares of a node's stake, at its price. They are 2^16 to a base unit at first, so that no reward makes one
    /// dear, and fewer than 2^32 to a base unit: below, the old are void and what is left of them goes to the new.
    function _mint(uint256 index, uint256 stake_, uint256 amount) private returns (uint256 minted, uint256 generation) {
        uint256 shares = _totalShares[index].active;
        generation = _generations[index].active;
        if (_isLive(stake_, shares)) {
            minted = (amount * shares) / stake_;
            _totalShares[index].active = uint128(shares + minted);
            return (minted, generation);
        }
        if (shares != 0) _generations[index].active = uint32(++generation);
        minted = (stake_ + amount) << 16;
        _totalShares[index].active = uint128(minted);
    }

    function _isLive(uint256 amount, uint256 shares) private pure returns (bool) {
        return amount != 0 && shares != 0 && amount << 32 >= shares;
    }

    /// Before the caller's part of a node changes: what it has added before the last report becomes shares.
    function _enter(uint256 index) private {
        uint256 joinedAt = _pools[index].joinedAt;
        if (joinedAt != 0 && joinedAt <= _totals.reports) _fold(index);
        _claim(index, msg.sender);
    }

    /// Makes what a delegate had in a batch that has become shares its own shares.
    function _claim(uint256 index, address delegate_) private {
        Joining memory own = _joiningOf[index][delegate_];
        // slither-disable-next-line incorrect-equality -- our own books, nothing sent here changes them
        if (own.amount == 0) return;
        Batch memory batch = _batches[index][own.joinedAt];
        if (batch.amount == 0) return;
        delete _joiningOf[index][delegate_];
        _shares[index][batch.generation][delegate_] += _partOf(batch, own.amount);
    }

    /// Adds to what joins a node before the report `joinedAt`, after what the delegate had before is claimed.
    function _join(uint256 index, address delegate_, uint256 amount, uint56 joinedAt) private {
        _claim(index, delegate_);
        _joining[index] += amount;
        Joining storage own = _joiningOf[index][delegate_];
        own.amount += uint96(amount);
        own.joinedAt = joinedAt;
    }

    function _partOf(Batch memory batch, uint256 amount) private pure returns (uint256) {
        return (amount * batch.shares) / batch.amount;
    }

    function _worth(uint256 amount, uint256 shares, uint256 own) private pure returns (uint256) {
        return shares == 0 ? 0 : (own * amount) / shares;
    }

    /// What has joined since the last report leaves first.
    function _undelegate(uint256 index, address node, uint256 amount) private {
        _release(index);
        _enter(index);
        Pool memory pool = _pools[index];
        uint256 moved = _joiningOf[index][msg.sender].amount;
        if (moved > amount) moved = amount;
        if (moved != 0) {
            _joiningOf[index][msg.sender].amount -= uint96(moved);
            _joining[index] -= moved;
            // slither-disable-next-line incorrect-equality -- our own books, nothing sent here changes them
            if (_joining[index] == 0) pool.joinedAt = 0;
        }
        if (amount > moved) {
            uint256 worth = _burn(index, pool, amount - moved);
            pool.stake -= uint96(worth);
            moved += worth;
        }
        Exit storage leaving = _exits[index][msg.sender];
        uint256 generation = _generations[index].leaving;
        uint256 shares = _totalShares[index].leaving;
        uint256 minted;
        if (_isLive(pool.leaving, shares)) {
            minted = (moved * shares) / pool.leaving;
            shares += minted;
        } else {
            if (shares != 0) _generations[index].leaving = uint32(++generation);
            minted = (pool.leaving + moved) << 16;
            shares = minted;
        }
        if (leaving.generation != generation) (leaving.shares, leaving.generation) = (0, uint32(generation));
        if (leaving.epoch == 0) _leavingFrom[msg.sender].push(index);
        leaving.shares += uint128(minted);
        _totalShares[index].leaving = uint128(shares);
        pool.leaving += uint96(moved);
        leaving.epoch = IReportManager(reportManager).endedEpochs() + uint32(EXIT_EPOCHS);
        leaving.time = uint48(block.timestamp + EXIT_TIME);
        pool.listed = _list(node, pool.listed, pool.stake + _joining[index]);
        _pools[index] = pool;
        emit StakeDelegateUpdated(msg.sender, node, moved, _stakeOf(index), delegatesOf(msg.sender, node), false);
    }

    /// Burns the caller's shares for `amount` of the stake; what they are worth, which is at least that.
    function _burn(uint256 index, Pool memory pool, uint256 amount) private returns (uint256 worth) {
        uint256 generation = _generations[index].active;
        uint256 total = _totalShares[index].active;
        uint256 own = _shares[index][generation][msg.sender];
        uint256 burnt = own;
        if (amount < _worth(pool.stake, total, own)) {
            burnt = (amount * total + pool.stake - 1) / pool.stake;
            if (burnt > own) burnt = own;
        }
        // slither-disable-next-line incorrect-equality -- whether these are all shares
        worth = burnt == total ? pool.stake : _worth(pool.stake, total, burnt);
        _shares[index][generation][msg.sender] = own - burnt;
        _totalShares[index].active = uint128(total - burnt);
    }

    function _releaseAll() private {
        uint256[] memory from = _leavingFrom[msg.sender];
        for (uint256 i = from.length; i > 0; --i) {
            _release(from[i - 1]);
        }
    }

    function _release(uint256 index) private {
        Exit memory leaving = _exits[index][msg.sender];
        // slither-disable-next-line incorrect-equality -- epochs of exits count from 2: 0 says that there is none
        if (leaving.epoch == 0) return;
        uint256 epochs = IReportManager(reportManager).endedEpochs();
        if (epochs < leaving.epoch && block.timestamp < leaving.time) return;
        delete _exits[index][msg.sender];
        uint256[] storage from = _leavingFrom[msg.sender];
        for (uint256 i = 0; i < from.length; ++i) {
            if (from[i] != index) continue;
            from[i] = from[from.length - 1];
            from.pop();
            break;
        }
        uint256 amount = 0;
        // slither-disable-next-line incorrect-equality -- shares of this generation, or void
        if (leaving.generation == _generations[index].leaving) {
            Pool storage pool = _pools[index];
            uint256 total = _totalShares[index].leaving;
            // slither-disable-next-line incorrect-equality -- whether these are all shares
            amount = leaving.shares == total ? pool.leaving : _worth(pool.leaving, total, leaving.shares);
            pool.leaving -= uint96(amount);
            _totalShares[index].leaving = uint128(total - leaving.shares);
            balanceOf[msg.sender] += amount;
        }
        emit ExitReleased(msg.sender, _addresses[index], amount);
    }

    // --- inside ----------------------------------------------------------------------------------------------------

    function _stakeOf(uint256 index) private view returns (uint256) {
        return _pools[index].stake + _joining[index];
    }

    function _undrawnStreams() private view returns (uint96) {
        unchecked {
            return _totals.streamsCaptured - _streamsDrawn;
        }
    }

    function _undrawnConsumers() private view returns (uint96) {
        unchecked {
            return IReportManager(reportManager).consumersCaptured() - _consumersDrawn;
        }
    }

    function _pay(uint256 amount) private {
        if (stakeToken.balanceOf(address(this)) < amount) draw();
        if (!stakeToken.transfer(msg.sender, amount)) revert TransferFailed();
    }

    function _upsert(string calldata metadata) private {
        if (bytes(metadata).length > MAX_METADATA) revert MetadataTooLong();
        bool isNew = _position[msg.sender] == 0;
        if (isNew) {
            if (_nodes.length == 0) startBlockNumber = block.number;
            _nodes.push(msg.sender);
            _position[msg.sender] = _nodes.length;
            uint256 index = indexOf[msg.sender];
            if (index == 0) {
                index = ++count;
                indexOf[msg.sender] = index;
                _addresses[index] = msg.sender;
                emit NodeIndexed(uint32(index), msg.sender);
            }
            // It may come back to what others have left delegated to it.
            _pools[index].listed = _list(msg.sender, false, _stakeOf(index));
        }
        _metadata[msg.sender] = metadata;
        _lastSeen[msg.sender] = block.timestamp;
        emit NodeUpdated(msg.sender, metadata, isNew, block.timestamp);
    }

    function _remove() private {
        if (_position[msg.sender] == 0) revert NotRegistered();
        if (IReportManager(reportManager).isMember(msg.sender)) revert IsMember(msg.sender);
        _take(_nodes, _position, msg.sender);
        if (_nodes.length == 0) startBlockNumber = 0;
        if (_stakedPosition[msg.sender] != 0) _take(_staked, _stakedPosition, msg.sender);
        _pools[indexOf[msg.sender]].listed = false;
        delete _metadata[msg.sender];
        delete _lastSeen[msg.sender];
        emit NodeRemoved(msg.sender);
    }

    /// Whether a node is among the staked ones now: those that are registered and reach the requirement.
    function _list(address node, bool listed, uint256 total) private returns (bool) {
        bool reaches = total >= stakeRequiredAmount && _position[node] != 0;
        // slither-disable-next-line incorrect-equality -- two booleans
        if (reaches == listed) return listed;
        if (listed) {
            _take(_staked, _stakedPosition, node);
        } else {
            _staked.push(node);
            _stakedPosition[node] = _staked.length;
        }
        return reaches;
    }

    /// Takes one address out of a list by moving the last one into its place.
    function _take(address[] storage list, mapping(address => uint256) storage position, address account) private {
        uint256 place = position[account];
        address last = list[list.length - 1];
        list[place - 1] = last;
        position[last] = place;
        list.pop();
        delete position[account];
    }
}
